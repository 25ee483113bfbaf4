import type { Container } from "../host/engine.ts";
import type { HostReader } from "../host/host.ts";
import { isOurCompose } from "../model/compose.ts";
import { isOurCron } from "../model/crontab.ts";
import { findEntry, parseEnvFile } from "../model/env-file.ts";
import { type Fate, fateOf, type Fates, type Part, TAKEN_OVER, writerFates } from "../model/leave.ts";
import { isOurs, NAMES } from "../model/master-layout.ts";
import { isTemporary } from "../model/temporary-name.ts";
import { PROJECT } from "./compose-services.ts";
import type { NodeLayout } from "./node-context.ts";
import { findWriterMarks } from "./writer-data.ts";

/** A node that leaves, and where its things are looked for. */
export interface LeavingNode {
  readonly kind: "master" | "storage-node";
  readonly layout: NodeLayout & { readonly journal: string };
  /** The entries of its base directory. */
  readonly fates: Fates;
  /** Where a writer made here lives; null for a kind of node that makes none. */
  readonly writerDir: string | null;
  /** Compose projects. */
  readonly projects: readonly string[];
  readonly cronFiles: readonly string[];
  /** Names that its containers have; one of them that is not ours is told. */
  readonly containers: readonly string[];
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
}

/** What is on the box of a node. */
export interface Survey {
  readonly things: readonly Thing[];
  /** What is there and is not ours to touch, a phrase each. */
  readonly others: readonly string[];
}

const SERVICE_IMAGE = /^fula-node:/;

/**
 * Looks for everything that joins make, by the marks that they leave: labels, first lines, names in our own
 * directories. A directory is among it once all that it holds goes, with what is purged.
 */
export async function surveyNode(
  host: HostReader,
  node: LeavingNode,
  purged: ReadonlySet<Part>,
): Promise<Survey> {
  const parts = await Promise.all([
    surveyCron(host, node),
    surveyDocker(host, node),
    surveyWriter(host, node, purged),
    surveyBase(host, node, purged),
  ]);
  return { things: parts.flatMap(({ things }) => things), others: parts.flatMap(({ others }) => others) };
}

async function surveyCron(host: HostReader, { cronFiles, layout }: LeavingNode): Promise<Survey> {
  const things: Thing[] = [];
  const others: string[] = [];
  for (const path of cronFiles) {
    const [directory, name] = splitPath(path);
    const text = await host.files.readText(path);
    const isOfThisNode = text !== null && isOurCron(text) && text.includes(`${layout.baseDir}/`);
    if (isOfThisNode) things.push({ kind: "cron-file", name: path, part: null });
    else if (text !== null) others.push(`${path} (not written for ${layout.baseDir})`);
    for (const entry of (await host.files.list(directory)) ?? []) {
      if (isTemporary(entry) && entry.startsWith(`.${name}.`))
        things.push({ kind: "cron-file", name: `${directory}/${entry}`, part: null });
    }
  }
  return { things, others };
}

async function surveyDocker(host: HostReader, node: LeavingNode): Promise<Survey> {
  const { docker } = host;
  const [containers, volumes, networks, images] = await Promise.all([
    docker.containers(),
    docker.listVolumes(),
    docker.listNetworks(),
    docker.listImages(),
  ]);
  const isThis = (thing: { readonly labels: Readonly<Record<string, string>> }) =>
    isOurs(thing) && node.projects.includes(thing.labels[PROJECT] ?? "");
  const own = containers.filter(isThis);
  const strangers = containers.filter((container) => !isThis(container));
  const things: Thing[] = newestFirst(own).map(({ name }) => ({ kind: "container", name, part: null }));
  const others = strangers
    .filter(({ name }) => node.containers.includes(name))
    .map(({ name }) => `container ${name}`);
  /** Docker refuses to remove what another container uses, so it is left, and told. */
  const add = (thing: Thing, uses: (container: Container) => boolean): void => {
    const user = strangers.find(uses);
    if (user === undefined) things.push(thing);
    else others.push(`${thing.kind} ${thing.name}, which container ${user.name} uses`);
  };
  for (const { name } of networks.filter(isThis))
    add({ kind: "network", name, part: null }, ({ networkMode }) => networkMode === name);
  for (const { name } of volumes.filter(isThis))
    add({ kind: "volume", name, part: "data" }, ({ mounts }) => mounts.some((mount) => mount.name === name));
  for (const { id, tags } of images.filter(isOurs)) {
    const names = tags.length === 0 ? [id] : tags.filter((tag) => SERVICE_IMAGE.test(tag));
    for (const name of names) add({ kind: "image", name, part: null }, ({ imageId }) => imageId === id);
  }
  const adopted = volumes.filter(
    (volume) => !isThis(volume) && own.some(({ mounts }) => mounts.some(({ name }) => name === volume.name)),
  );
  return { things, others: [...others, ...adopted.map(({ name }) => `volume ${name}`)] };
}

/** Only what lies beside marks of ours: an adopted writer may live at the same place. */
async function surveyWriter(
  host: HostReader,
  { writerDir }: LeavingNode,
  purged: ReadonlySet<Part>,
): Promise<Survey> {
  const names = writerDir === null ? null : await host.files.list(writerDir);
  if (writerDir === null || names === null) return { things: [], others: [] };
  const composeText = await textOf(host, `${writerDir}/docker-compose.yml`);
  const marks = await findWriterMarks(host, writerDir);
  const isMarked = marks.length > 0 || isOurCompose(composeText);
  if (!isMarked && names.length > 0) return { things: [], others: [writerDir] };
  const fates = writerFates(names.includes(TAKEN_OVER));
  return surveyDirectory(host, { directory: writerDir, names, fates, purged, journal: null });
}

async function surveyBase(
  host: HostReader,
  { layout, fates }: LeavingNode,
  purged: ReadonlySet<Part>,
): Promise<Survey> {
  const { baseDir, journal } = layout;
  const names = await host.files.list(baseDir);
  if (names === null) return { things: [], others: [] };
  if (names.length > 0 && !(await isOurBase(host, layout))) return { things: [], others: [baseDir] };
  return surveyDirectory(host, { directory: baseDir, names, fates, purged, journal });
}

/** Upstream's installer uses the same directory, and the same `.env`: one of our marks tells. */
async function isOurBase(host: HostReader, layout: LeavingNode["layout"]): Promise<boolean> {
  if ((await host.files.stat(layout.journal)) !== null) return true;
  if ((await host.files.readLink(layout.cliCurrent)) !== null) return true;
  if (isOurCompose(await textOf(host, layout.composeFile))) return true;
  const env = parseEnvFile(await textOf(host, layout.envFile));
  return env.ok && findEntry(env, "FULA_NODE_VERSION") !== undefined;
}

async function surveyDirectory(
  host: HostReader,
  at: {
    readonly directory: string;
    readonly names: readonly string[];
    readonly fates: Fates;
    readonly purged: ReadonlySet<Part>;
    readonly journal: string | null;
  },
): Promise<Survey> {
  const { directory, names, fates, purged, journal } = at;
  const judged = await Promise.all(
    names.map(async (name) => {
      const fate = fateOf(name, fates);
      const isOthers = fate === "marked" && !isOurCompose(await textOf(host, `${directory}/${name}`));
      return { path: `${directory}/${name}`, fate: isOthers ? null : fate };
    }),
  );
  const hasData = judged.some(({ fate, path }) => fate === "data" || path.endsWith(`/${TAKEN_OVER}`));
  const marksLast = judged.toSorted((a, b) => Number(a.fate === "mark") - Number(b.fate === "mark"));
  const things = marksLast.flatMap(({ path, fate }): Thing[] => {
    if (fate === null) return [];
    const kind = path === journal ? "journal" : "path";
    return [{ kind, name: path, part: partOf(fate, hasData) }];
  });
  const others = judged.filter(({ fate }) => fate === null).map(({ path }) => path);
  // The journal of a leave lies in its base directory, which so stays as long as logs do.
  const isEmptied =
    others.length === 0 &&
    things.every(({ part }) => part === null || purged.has(part)) &&
    (journal === null || purged.has("logs"));
  return {
    things: isEmptied ? [...things, { kind: "directory", name: directory, part: null }] : things,
    others,
  };
}

function partOf(fate: Fate, hasData: boolean): Part | null {
  if (fate === "goes" || fate === "marked") return null;
  if (fate === "mark") return hasData ? "data" : null;
  return fate;
}

/** Nobody is left without what it was started after; the updater, which could start others anew, goes first. */
function newestFirst(containers: readonly Container[]): readonly Container[] {
  const rank = ({ name, startedAt }: Container) => `${name === NAMES.updater ? 1 : 0}${startedAt}`;
  return containers.toSorted((a, b) => (rank(a) < rank(b) ? 1 : -1));
}

/** Blank where there is no such file. */
async function textOf(host: HostReader, path: string): Promise<string> {
  return (await host.files.readText(path)) ?? "";
}

function splitPath(path: string): readonly [directory: string, name: string] {
  const at = path.lastIndexOf("/");
  return [path.slice(0, at), path.slice(at + 1)];
}
