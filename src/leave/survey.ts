import { PROJECT } from "../docker/compose-services.ts";
import type { Container } from "../docker/engine.ts";
import type { HostReader } from "../host.ts";
import { isOurCron } from "../machine/crontab.ts";
import { isTemporary } from "../machine/file-writer.ts";
import { isOurs, NAMES } from "../settings/master-layout.ts";
import type { NodeLayout } from "../settings/node-context.ts";
import { surveyBase, surveyWriter } from "./directories.ts";
import type { Fates, Part } from "./policy.ts";

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
  /** Names that the volume of its database may have, ours or one that was adopted. */
  readonly databaseVolumes: readonly string[];
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
  /** Those of the others that hold the node's database. */
  readonly databases: readonly string[];
}

/** What is in one place. */
export type Found = Omit<Survey, "databases">;

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
  const [, { databases }] = parts;
  return {
    things: parts.flatMap(({ things }) => things),
    others: parts.flatMap(({ others }) => others),
    databases,
  };
}

async function surveyCron(host: HostReader, { cronFiles, layout }: LeavingNode): Promise<Found> {
  const things: Thing[] = [];
  const others: string[] = [];
  for (const path of cronFiles) {
    const [directory, name] = splitPath(path);
    const text = await host.files.readText(path);
    const isOfThisNode =
      text !== null && isOurCron(text) && text.includes(` ${layout.cliCurrent}/bin/fula-node.js `);
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
  // Once a leave has removed the containers, only its name tells of an adopted database.
  const adopted = volumes.filter(
    (volume) =>
      !isThis(volume) &&
      (node.databaseVolumes.includes(volume.name) ||
        own.some(({ mounts }) => mounts.some(({ name }) => name === volume.name))),
  );
  const databases = volumes
    .map(({ name }) => name)
    .filter((name) => node.databaseVolumes.includes(name))
    .filter((name) => !things.some((thing) => thing.kind === "volume" && thing.name === name));
  return {
    things,
    others: [...others, ...adopted.map(({ name }) => `volume ${name}`)],
    databases: databases.map((name) => `volume ${name}`),
  };
}

/** Nobody is left without what it was started after; the updater, which could start others anew, goes first. */
function newestFirst(containers: readonly Container[]): readonly Container[] {
  const rank = ({ name, startedAt }: Container) => `${name === NAMES.updater ? 1 : 0}${startedAt}`;
  return containers.toSorted((a, b) => (rank(a) < rank(b) ? 1 : -1));
}

function splitPath(path: string): readonly [directory: string, name: string] {
  const at = path.lastIndexOf("/");
  return [path.slice(0, at), path.slice(at + 1)];
}
