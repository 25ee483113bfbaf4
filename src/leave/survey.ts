import { isBuiltImage } from "../docker/kept-service.ts";
import { findWriterMarks } from "../docker/compose-project.ts";
import { isOurCompose } from "../docker/compose-document.ts";
import type { Container } from "../docker/engine.ts";
import type { Host, HostReader } from "../host.ts";
import { isOfProject, lookAtPlace, type NodeKind } from "../join/installed-node.ts";
import { isOurCron } from "../machine/crontab.ts";
import { isTemporary } from "../machine/file-writer.ts";
import type { NodeLayout, Values } from "../settings/context.ts";
import {
  CRON_FILES,
  DRILL_LABEL,
  isOurs,
  masterLayout,
  NAMES,
  STORAGE_NAMES,
  storageLayout,
} from "../settings/layout.ts";
import { describeLink, type Entry, isWhole, lookAtEntry, readMounts, textOf } from "./entries.ts";
import {
  cleanupOf,
  type CleanupPolicy,
  masterPolicy,
  type Part,
  partOf,
  storagePolicy,
  wasEmptiedByLeave,
  writerPolicy,
} from "./policy.ts";

/** A node that leaves, and where to look for its things. */
export interface LeavingNode {
  readonly kind: NodeKind;
  readonly layout: NodeLayout & { readonly journal: string };
  /** The settings in `.env`, and defaults for those that are not there. */
  readonly values: Values;
  /** The directory of a writer that was made here; null for a storage node, which has none. */
  readonly writerDir: string | null;
  /** The names that the volume of its database may have, created or adopted. */
  readonly databaseVolumes: readonly string[];
}

/** Something on the box that fula-node created. */
export interface Thing {
  readonly kind:
    | "cron-file"
    | "container"
    | "network"
    | "image"
    | "volume"
    | "path"
    | "journal"
    | "directory";
  readonly name: string;
  /** The part with which it is removed; null if every leave removes it. */
  readonly part: Part | null;
  readonly summary: string;
  /** True if it is there, whoever made it. */
  readonly isHere: (host: HostReader) => Promise<boolean>;
  /** Looks at this thing only. True if it is still there, still ours, and nothing else uses it. */
  readonly isStillOurs: (host: HostReader) => Promise<boolean>;
  readonly remove: (host: Host) => Promise<void>;
}

/** What a node has on the box. */
export interface Survey {
  readonly things: readonly Thing[];
  /** What stays because fula-node did not create it, a phrase each. */
  readonly others: readonly string[];
  /** Those of `others` that have the node's database. */
  readonly databases: readonly string[];
}

/** What was found. What of it is removed depends on the purge: see `applyPurge`. */
export interface Observed extends Survey {
  readonly directories: readonly Directory[];
}

/** A directory that a node uses. */
interface Directory {
  readonly path: string;
  readonly linkTarget: string | null;
  readonly isMount: boolean;
  readonly entries: readonly Entry[];
  /** The path of the journal that this leave writes here; null for the writer's directory. */
  readonly journal: string | null;
}

type Removal = readonly [
  summarize: (name: string) => string,
  remove: (host: Host, name: string) => Promise<void>,
];

const REMOVE_PATH: Removal = [(path) => `remove ${path}`, ({ files }, path) => files.remove(path)];

/** By the kind of a thing: how the plan calls its removal, and how it is removed. */
const REMOVALS: Readonly<Record<Thing["kind"], Removal>> = {
  "cron-file": REMOVE_PATH,
  path: REMOVE_PATH,
  journal: REMOVE_PATH,
  directory: [
    (path) => `remove the empty directory ${path}`,
    ({ files }, path) => files.removeEmptyDirectory(path),
  ],
  container: [
    (name) => `stop and remove the container ${name}`,
    ({ docker }, name) => docker.removeContainer(name),
  ],
  network: [(name) => `remove the network ${name}`, ({ docker }, name) => docker.removeNetwork(name)],
  volume: [
    (name) => `remove the volume ${name} with all its data`,
    ({ docker }, name) => docker.removeVolume(name),
  ],
  image: [
    (name) => `remove the image ${name.replace(/^(sha256:[0-9a-f]{12})[0-9a-f]+$/, "$1")}`,
    ({ docker }, name) => docker.removeImage(name),
  ],
};

type Labelled = Pick<Container, "labels">;

/** Docker's own label on a volume that was made for one container. */
const ANONYMOUS = "com.docker.volume.anonymous";

/** True for what a drill made. */
function isOfDrill(thing: Labelled | null): boolean {
  return thing !== null && DRILL_LABEL in thing.labels;
}

/** How to look at one thing of Docker by its name. */
const LOOK_UP = {
  container: ({ docker }, name) => docker.container(name),
  network: async ({ docker }, name) =>
    (await docker.listNetworks()).find((network) => network.name === name) ?? null,
  volume: ({ docker }, name) => docker.volume(name),
  image: ({ docker }, name) => docker.image(name),
} satisfies Record<string, (host: HostReader, name: string) => Promise<Labelled | null>>;

/**
 * Looks once at the whole box for everything that joins create. It recognizes things by their marks: labels, first
 * lines, names in our own directories.
 */
export async function surveyNode(host: HostReader, node: LeavingNode): Promise<Observed> {
  const found = await Promise.all([
    surveyCron(host, node),
    surveyDocker(host, node),
    surveyWriter(host, node),
    surveyBase(host, node),
  ]);
  return {
    things: found.flatMap(({ things = [] }) => things),
    others: found.flatMap(({ others = [] }) => others),
    databases: found.flatMap(({ databases = [] }) => databases),
    directories: found.flatMap(({ directories = [] }) => directories),
  };
}

/** What is removed and what stays with these parts purged. A directory is removed if all its content is. */
export function applyPurge(observed: Observed, purged: ReadonlySet<Part>): Survey {
  const decided = observed.directories.map((directory) => purgeDirectory(directory, purged));
  return {
    things: [...observed.things, ...decided.flatMap(({ things }) => things)],
    others: [...observed.others, ...decided.flatMap(({ others }) => others)],
    databases: observed.databases,
  };
}

/** True for what a leave with these parts purged removes. */
export function isGoing({ part }: Pick<Thing, "part">, purged: ReadonlySet<Part>): boolean {
  return part === null || purged.has(part);
}

async function surveyCron({ files }: HostReader, { kind, layout }: LeavingNode): Promise<Partial<Observed>> {
  const things: Thing[] = [];
  const others: string[] = [];
  const isOfThisNode = (text: string | null) =>
    text !== null && isOurCron(text) && text.includes(` ${layout.cliCurrent}/bin/fula-node.js `);
  const add = (path: string, isStillOurs: Thing["isStillOurs"]) =>
    things.push(makeThing("cron-file", path, null, isStillOurs));
  for (const path of kind === "master" ? Object.values(CRON_FILES) : []) {
    const [directory, name] = [path.slice(0, path.lastIndexOf("/")), path.slice(path.lastIndexOf("/") + 1)];
    const text = await files.readText(path);
    if (isOfThisNode(text)) add(path, async (host) => isOfThisNode(await host.files.readText(path)));
    else if (text !== null) others.push(`${path} (not written for ${layout.baseDir})`);
    for (const entry of (await files.list(directory)) ?? []) {
      if (isTemporary(entry) && entry.startsWith(`.${name}.`))
        add(
          `${directory}/${entry}`,
          async (host) => (await host.files.stat(`${directory}/${entry}`)) !== null,
        );
    }
  }
  return { things, others };
}

async function surveyDocker(host: HostReader, node: LeavingNode): Promise<Partial<Observed>> {
  const { docker } = host;
  const [containers, volumes, networks, images] = await Promise.all([
    docker.containers(),
    docker.listVolumes(),
    docker.listNetworks(),
    docker.listImages(),
  ]);
  const isOfThisNode = (thing: Labelled | null): boolean =>
    thing !== null && isOurs(thing) && isOfProject(node.kind, thing);
  const own = containers.filter(isOfThisNode);
  const foreign = containers.filter((container) => !isOfThisNode(container));
  const mounts = (volume: string) => (container: Container) =>
    container.mounts.some(({ name }) => name === volume);
  const names: readonly string[] = Object.values(node.kind === "master" ? NAMES : STORAGE_NAMES);
  const others = foreign.flatMap(({ name }) => (names.includes(name) ? [`container ${name}`] : []));
  const foreignUser = async (at: HostReader, kind: "volume" | "network" | "image", name: string) =>
    (await at.docker.usersOf(kind, name)).find((user) => !isOfThisNode(user));
  const ofDocker = (kind: keyof typeof LOOK_UP, name: string, isIt = isOfThisNode, usedAs = name) =>
    makeThing(kind, name, kind === "volume" ? "data" : null, async (at) => {
      if (!isIt(await LOOK_UP[kind](at, name))) return false;
      return kind === "container" || (await foreignUser(at, kind, usedAs)) === undefined;
    });
  const things = newestFirst(own).map(({ name }) => ofDocker("container", name));
  /** Docker refuses to remove what another container uses. Such a thing stays and is listed. */
  const add = async (thing: Thing, kind: "volume" | "network" | "image", usedAs = thing.name) => {
    const user = await foreignUser(host, kind, usedAs);
    if (user === undefined) things.push(thing);
    else others.push(`${thing.kind} ${thing.name}, which container ${user.name} uses`);
  };
  for (const { name } of networks.filter(isOfThisNode)) await add(ofDocker("network", name), "network");
  for (const { name } of volumes.filter(isOfThisNode)) await add(ofDocker("volume", name), "volume");
  for (const { id, tags } of images.filter(isOurs)) {
    // An image does not belong to a compose project: our label alone marks it.
    const isOurImage = (one: Labelled | null) => one !== null && isOurs(one);
    for (const name of tags.length === 0 ? [id] : tags.filter(isBuiltImage))
      await add(ofDocker("image", name, isOurImage, id), "image", id);
  }
  // A drill that was killed may have left a copy of the database.
  const drills = node.kind === "master" ? containers.filter(isOfDrill) : [];
  const isVolumeOfDrill = (volume: Labelled & { readonly name: string }) =>
    isOfDrill(volume) || (ANONYMOUS in volume.labels && drills.some(mounts(volume.name)));
  things.push(
    ...drills.map(({ name }) => ofDocker("container", name, isOfDrill)),
    ...(node.kind === "master" ? volumes.filter(isVolumeOfDrill) : []).map(({ name }) =>
      makeThing("volume", name, null, async (at) =>
        (await at.docker.volume(name)) === null
          ? false
          : (await at.docker.usersOf("volume", name)).every(isOfDrill),
      ),
    ),
  );
  // After a leave has removed the containers, an adopted database can be recognized by its name only.
  const isDatabase = (volume: string) => node.databaseVolumes.includes(volume);
  const adopted = volumes.filter(
    (volume) => !isOfThisNode(volume) && (isDatabase(volume.name) || own.some(mounts(volume.name))),
  );
  const ours = new Set(things.flatMap(({ kind, name }) => (kind === "volume" ? [name] : [])));
  return {
    things,
    others: [...others, ...adopted.map(({ name }) => `volume ${name}`)],
    databases: volumes.flatMap(({ name }) => (isDatabase(name) && !ours.has(name) ? [`volume ${name}`] : [])),
  };
}

/** The order of removal: the updater first, since it could start others again; then dependents before what they need. */
function newestFirst(containers: readonly Container[]): readonly Container[] {
  const rank = ({ name, startedAt }: Container) => `${name === NAMES.updater ? 1 : 0}${startedAt}`;
  return containers.toSorted((a, b) => (rank(a) < rank(b) ? 1 : -1));
}

/** The directory of a writer that was made here. Only our marks show that: an adopted writer may use the same directory. */
async function surveyWriter(
  host: HostReader,
  { writerDir, layout }: LeavingNode,
): Promise<Partial<Observed>> {
  const names = writerDir === null ? null : await host.files.list(writerDir);
  if (writerDir === null || names === null) return {};
  const marks = await findWriterMarks(host, writerDir);
  const isMarked = marks.length > 0 || isOurCompose(await textOf(host, `${writerDir}/docker-compose.yml`));
  if (!isMarked && names.length > 0) return { others: [writerDir] };
  if (!isMarked && !wasEmptiedByLeave(await textOf(host, layout.journal), writerDir)) return {};
  return surveyDirectory(host, writerDir, { names, policy: writerPolicy(names), journal: null });
}

/** The base directory. A killed leave may have left it empty. */
async function surveyBase(host: HostReader, { kind, layout }: LeavingNode): Promise<Partial<Observed>> {
  const { baseDir, journal } = layout;
  const names = await host.files.list(baseDir);
  if (names === null) return {};
  // Upstream's installer uses the same directory and the same `.env`: only with one of our marks it is ours.
  const { signs } = await lookAtPlace(host, baseDir, kind);
  if (names.length > 0 && !signs.some((sign) => sign.isOurs)) return { others: [baseDir] };
  const policy =
    kind === "master" ? masterPolicy(masterLayout(baseDir)) : storagePolicy(storageLayout(baseDir));
  return surveyDirectory(host, baseDir, { names, policy, journal });
}

async function surveyDirectory(
  host: HostReader,
  path: string,
  at: { readonly names: readonly string[]; readonly policy: CleanupPolicy; readonly journal: string | null },
): Promise<Partial<Observed>> {
  const { names, policy, journal } = at;
  const [mounts, linkTarget] = await Promise.all([readMounts(host), host.files.readLink(path)]);
  const looked = await Promise.all(
    names.map((name) => lookAtEntry(host, `${path}/${name}`, cleanupOf(name, policy))),
  );
  const entries = looked.flat();
  return { directories: [{ path, linkTarget, isMount: mounts.has(path), entries, journal }] };
}

function purgeDirectory(
  { path, linkTarget, isMount, entries, journal }: Directory,
  purged: ReadonlySet<Part>,
): Pick<Survey, "things" | "others"> {
  const hasData = entries.some(({ isData }) => isData);
  const markersLast = entries.toSorted(
    (a, b) => Number(a.cleanup === "marker") - Number(b.cleanup === "marker"),
  );
  const things = markersLast.flatMap(({ path: name, cleanup }): Thing[] => {
    if (cleanup === null) return [];
    const isStillOurs: Thing["isStillOurs"] = async (host) =>
      (await host.files.stat(name)) !== null && isWhole(name, await lookAtEntry(host, name, cleanup));
    return [makeThing(name === journal ? "journal" : "path", name, partOf(cleanup, hasData), isStillOurs)];
  });
  const going = new Map(things.flatMap((one) => (isGoing(one, purged) ? [[one.name, one] as const] : [])));
  const others = entries.flatMap((entry) => (entry.cleanup === null ? [entry.reason ?? entry.path] : []));
  if (linkTarget !== null)
    return { things, others: entries.length === 0 ? [] : [...others, describeLink(path, linkTarget)] };
  // This leave writes its journal here, so the directory stays if logs stay.
  const isKept = journal !== null && !purged.has("logs");
  if (others.length > 0 || going.size < things.length || isKept) return { things, others };
  if (isMount)
    return { things, others: [`${path} (only the empty directory): a file system is mounted there`] };
  const directory = makeThing("directory", path, null, async (host) => {
    const { files } = host;
    const names = (await files.readLink(path)) === null ? await files.list(path) : null;
    const inside = (names ?? []).map((name) => going.get(`${path}/${name}`));
    const areOurs = await Promise.all(inside.map(async (entry) => (await entry?.isStillOurs(host)) === true));
    return names !== null && !areOurs.includes(false);
  });
  return { things: [...things, directory], others };
}

/** A thing of ours, with what `REMOVALS` says about its kind. */
function makeThing(
  kind: Thing["kind"],
  name: string,
  part: Part | null,
  isStillOurs: Thing["isStillOurs"],
): Thing {
  const [summarize, remove] = REMOVALS[kind];
  const isHere: Thing["isHere"] = async (host) =>
    kind in LOOK_UP
      ? (await LOOK_UP[kind as keyof typeof LOOK_UP](host, name)) !== null
      : (await host.files.stat(name)) !== null;
  return {
    kind,
    name,
    part,
    summary: summarize(name),
    isHere,
    isStillOurs,
    remove: (host) => remove(host, name),
  };
}
