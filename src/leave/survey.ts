import { isOurCompose } from "../docker/compose-render.ts";
import type { Container } from "../docker/engine.ts";
import type { Host, HostReader } from "../host.ts";
import { isOfProject, lookAtPlace, type NodeKind } from "../join/installed-node.ts";
import { isOurCron } from "../machine/crontab.ts";
import { isTemporary } from "../machine/file-writer.ts";
import {
  CRON_FILES,
  isOurs,
  masterLayout,
  NAMES,
  STORAGE_NAMES,
  storageLayout,
  TAKEN_OVER,
} from "../settings/layout.ts";
import type { NodeLayout, Values } from "../settings/context.ts";
import {
  type Cleanup,
  cleanupOf,
  type CleanupPolicy,
  masterPolicy,
  mountPointsOf,
  type Part,
  partOf,
  storagePolicy,
  wasEmptiedByLeave,
  writerPolicy,
} from "./policy.ts";
import { findWriterMarks } from "../docker/compose-project.ts";

/** A node that leaves, and where its things are looked for. */
export interface LeavingNode {
  readonly kind: NodeKind;
  readonly layout: NodeLayout & { readonly journal: string };
  /** The settings that `.env` has, or else their defaults. */
  readonly values: Values;
  /** Where a writer made here lives; null for a kind of node that makes none. */
  readonly writerDir: string | null;
  /** Names that the volume of its database may have, ours or one that was adopted. */
  readonly databaseVolumes: readonly string[];
}

/** Something of ours on the box. */
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
  /** With what it goes; null: whenever the node leaves. */
  readonly part: Part | null;
  readonly summary: string;
  /** Looks at it alone: true if it is still there and still ours to remove. */
  readonly isStillOurs: (host: HostReader) => Promise<boolean>;
  readonly remove: (host: Host) => Promise<void>;
}

/** What is on the box of a node. */
export interface Survey {
  readonly things: readonly Thing[];
  /** What is there and is not ours to touch, a phrase each. */
  readonly others: readonly string[];
  /** Those of the others that hold the node's database. */
  readonly databases: readonly string[];
}

/** What was seen; what of it goes depends on what is purged, see `judge`. */
export interface Sighting extends Survey {
  readonly directories: readonly Directory[];
}

/** A directory of ours. */
interface Directory {
  readonly path: string;
  readonly linkTarget: string | null;
  readonly isMount: boolean;
  readonly entries: readonly Entry[];
  /** The path of the journal that this leave writes here; null elsewhere. */
  readonly journal: string | null;
}

/** An entry of a directory of ours. */
interface Entry {
  readonly path: string;
  /** Null for what stays; `words` then says why, if it looks like ours. */
  readonly cleanup: Cleanup | null;
  readonly words: string | null;
  readonly isMount: boolean;
  /** True for a node's data, behind a link too, and for the mark of data that was taken over. */
  readonly isData: boolean;
}

const SERVICE_IMAGE = /^fula-node:/;

/**
 * Looks once at the whole box for everything that joins make, by the marks that they leave: labels, first
 * lines, names in our own directories.
 */
export async function surveyNode(host: HostReader, node: LeavingNode): Promise<Sighting> {
  const seen = await Promise.all([
    surveyCron(host, node),
    surveyDocker(host, node),
    surveyWriter(host, node),
    surveyBase(host, node),
  ]);
  return {
    things: seen.flatMap(({ things = [] }) => things),
    others: seen.flatMap(({ others = [] }) => others),
    databases: seen.flatMap(({ databases = [] }) => databases),
    directories: seen.flatMap(({ directories = [] }) => directories),
  };
}

/** What goes and what stays with these parts purged. A directory goes once all that it holds goes. */
export function judge(sighting: Sighting, purged: ReadonlySet<Part>): Survey {
  const judged = sighting.directories.map((directory) => judgeDirectory(directory, purged));
  return {
    things: [...sighting.things, ...judged.flatMap(({ things }) => things)],
    others: [...sighting.others, ...judged.flatMap(({ others }) => others)],
    databases: sighting.databases,
  };
}

/** True for what goes with these parts purged. */
export function isGoing({ part }: Pick<Thing, "part">, purged: ReadonlySet<Part>): boolean {
  return part === null || purged.has(part);
}

async function surveyCron({ files }: HostReader, { kind, layout }: LeavingNode): Promise<Partial<Sighting>> {
  const things: Thing[] = [];
  const others: string[] = [];
  const isOfThisNode = (text: string | null) =>
    text !== null && isOurCron(text) && text.includes(` ${layout.cliCurrent}/bin/fula-node.js `);
  const add = (path: string, isStillOurs: Thing["isStillOurs"]) =>
    things.push(thingAt("cron-file", path, null, isStillOurs));
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

async function surveyDocker({ docker }: HostReader, node: LeavingNode): Promise<Partial<Sighting>> {
  const [containers, volumes, networks, images] = await Promise.all([
    docker.containers(),
    docker.listVolumes(),
    docker.listNetworks(),
    docker.listImages(),
  ]);
  const isThis = (thing: Pick<Container, "labels"> | null): boolean =>
    thing !== null && isOurs(thing) && isOfProject(node.kind, thing);
  const own = containers.filter(isThis);
  const strangers = containers.filter((container) => !isThis(container));
  const mounts = (volume: string) => (container: Container) =>
    container.mounts.some(({ name }) => name === volume);
  const names: readonly string[] = Object.values(node.kind === "master" ? NAMES : STORAGE_NAMES);
  const others = strangers.flatMap(({ name }) => (names.includes(name) ? [`container ${name}`] : []));
  const things: Thing[] = newestFirst(own).map(({ name }) => ({
    kind: "container",
    name,
    part: null,
    summary: `stop and remove the container ${name}`,
    isStillOurs: async (host) => isThis(await host.docker.container(name)),
    remove: (host) => host.docker.removeContainer(name),
  }));
  /** Docker refuses to remove what another container uses, so it is left, and listed. */
  const add = (thing: Thing, uses: (container: Container) => boolean): void => {
    const user = strangers.find(uses);
    if (user === undefined) things.push(thing);
    else others.push(`${thing.kind} ${thing.name}, which container ${user.name} uses`);
  };
  for (const { name } of networks.filter(isThis)) {
    const network: Thing = {
      kind: "network",
      name,
      part: null,
      summary: `remove the network ${name}`,
      isStillOurs: async (host) =>
        (await host.docker.listNetworks()).some((one) => one.name === name && isThis(one)),
      remove: (host) => host.docker.removeNetwork(name),
    };
    add(network, ({ networkMode }) => networkMode === name);
  }
  for (const { name } of volumes.filter(isThis)) {
    const volume: Thing = {
      kind: "volume",
      name,
      part: "data",
      summary: `remove the volume ${name} and all that is on it`,
      isStillOurs: async (host) => isThis(await host.docker.volume(name)),
      remove: (host) => host.docker.removeVolume(name),
    };
    add(volume, mounts(name));
  }
  for (const { id, tags } of images.filter(isOurs)) {
    for (const name of tags.length === 0 ? [id] : tags.filter((tag) => SERVICE_IMAGE.test(tag)))
      add(imageThing(name), ({ imageId }) => imageId === id);
  }
  // Once a leave has removed the containers, only its name shows an adopted database.
  const isDatabase = (volume: string) => node.databaseVolumes.includes(volume);
  const adopted = volumes.filter(
    (volume) => !isThis(volume) && (isDatabase(volume.name) || own.some(mounts(volume.name))),
  );
  const ours = new Set(things.flatMap(({ kind, name }) => (kind === "volume" ? [name] : [])));
  return {
    things,
    others: [...others, ...adopted.map(({ name }) => `volume ${name}`)],
    databases: volumes.flatMap(({ name }) => (isDatabase(name) && !ours.has(name) ? [`volume ${name}`] : [])),
  };
}

function imageThing(name: string): Thing {
  return {
    kind: "image",
    name,
    part: null,
    summary: `remove the image ${name.replace(/^(sha256:[0-9a-f]{12})[0-9a-f]+$/, "$1")}`,
    async isStillOurs({ docker }) {
      const image = await docker.image(name);
      return image !== null && isOurs(image);
    },
    remove: ({ docker }) => docker.removeImage(name),
  };
}

/** Nothing loses what it was started after; the updater, which could start others anew, goes first. */
function newestFirst(containers: readonly Container[]): readonly Container[] {
  const rank = ({ name, startedAt }: Container) => `${name === NAMES.updater ? 1 : 0}${startedAt}`;
  return containers.toSorted((a, b) => (rank(a) < rank(b) ? 1 : -1));
}

/** What a writer made here has: only what lies beside marks of ours, as an adopted one may live at the same place. */
async function surveyWriter(
  host: HostReader,
  { writerDir, layout }: LeavingNode,
): Promise<Partial<Sighting>> {
  const names = writerDir === null ? null : await host.files.list(writerDir);
  if (writerDir === null || names === null) return {};
  const marks = await findWriterMarks(host, writerDir);
  const isMarked = marks.length > 0 || isOurCompose(await textOf(host, `${writerDir}/docker-compose.yml`));
  if (!isMarked && names.length > 0) return { others: [writerDir] };
  if (!isMarked && !wasEmptiedByLeave(await textOf(host, layout.journal), writerDir)) return {};
  return surveyDirectory(host, writerDir, { names, policy: writerPolicy(names), journal: null });
}

/** What the base directory has of the node; an empty one may be all that a killed leave has left. */
async function surveyBase(host: HostReader, { kind, layout }: LeavingNode): Promise<Partial<Sighting>> {
  const { baseDir, journal } = layout;
  const names = await host.files.list(baseDir);
  if (names === null) return {};
  // Upstream's installer uses the same directory, and the same `.env`: one of our marks decides.
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
): Promise<Partial<Sighting>> {
  const { names, policy, journal } = at;
  const [mounts, linkTarget] = await Promise.all([readMounts(host), host.files.readLink(path)]);
  const entries = await Promise.all(
    names.map((name) => lookAtEntry(host, `${path}/${name}`, cleanupOf(name, policy))),
  );
  return { directories: [{ path, linkTarget, isMount: mounts.has(path), entries, journal }] };
}

/** Looks at an entry alone; it stays if it is a link, an emptied mount point, or lacks the mark that it should have. */
async function lookAtEntry(host: HostReader, path: string, cleanup: Cleanup | null): Promise<Entry> {
  const isMount = (await readMounts(host)).has(path);
  const isData = cleanup === "data" || path.endsWith(`/${TAKEN_OVER}`);
  const stays = { path, cleanup: null, words: null, isMount, isData };
  if (cleanup === null) return stays;
  const target = await host.files.readLink(path);
  if (target !== null) return { ...stays, words: linkWords(path, target) };
  if (cleanup === "remove-if-marked" && !isOurCompose(await textOf(host, path))) return stays;
  const isDirectory = isMount && (await host.files.stat(path))?.kind === "directory";
  if (isDirectory && (await host.files.list(path))?.length === 0)
    return { ...stays, words: mountWords(path), isData: false };
  return { ...stays, cleanup };
}

function judgeDirectory(
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
      (await host.files.stat(name)) !== null && (await lookAtEntry(host, name, cleanup)).cleanup !== null;
    return [thingAt(name === journal ? "journal" : "path", name, partOf(cleanup, hasData), isStillOurs)];
  });
  const going = new Map(things.flatMap((one) => (isGoing(one, purged) ? [[one.name, one] as const] : [])));
  const others = entries.flatMap((entry) => {
    if (entry.cleanup === null) return [entry.words ?? entry.path];
    return entry.isMount && going.has(entry.path) ? [mountWords(entry.path)] : [];
  });
  if (linkTarget !== null)
    return { things, others: entries.length === 0 ? [] : [...others, linkWords(path, linkTarget)] };
  // This leave writes its journal here, so the directory stays as long as logs do.
  const isKept = journal !== null && !purged.has("logs");
  if (others.length > 0 || going.size < things.length || isKept) return { things, others };
  if (isMount) return { things, others: [mountWords(path)] };
  const directory: Thing = {
    kind: "directory",
    name: path,
    part: null,
    summary: `remove the empty directory ${path}`,
    async isStillOurs(host) {
      const { files } = host;
      const names = (await files.readLink(path)) === null ? await files.list(path) : null;
      if (names === null) return false;
      const inside = names.map((name) => going.get(`${path}/${name}`));
      const areOurs = await Promise.all(
        inside.map(async (entry) => (await entry?.isStillOurs(host)) === true),
      );
      return !areOurs.includes(false);
    },
    remove: ({ files }) => files.removeEmptyDirectory(path),
  };
  return { things: [...things, directory], others };
}

function thingAt(
  kind: Thing["kind"],
  name: string,
  part: Part | null,
  isStillOurs: Thing["isStillOurs"],
): Thing {
  const remove: Thing["remove"] = ({ files }) => files.remove(name);
  return { kind, name, part, summary: `remove ${name}`, isStillOurs, remove };
}

function linkWords(path: string, target: string): string {
  return `${path} is a link to ${target}: remove what it points at by hand`;
}

function mountWords(path: string): string {
  return `${path}, the directory alone: a file system is mounted there`;
}

async function readMounts(host: HostReader): Promise<ReadonlySet<string>> {
  return mountPointsOf(await textOf(host, "/proc/self/mountinfo"));
}

/** Blank if there is no such file. */
async function textOf({ files }: HostReader, path: string): Promise<string> {
  return (await files.readText(path)) ?? "";
}
