import { basename, dirname } from "node:path";
import { imagesOfKind } from "../docker/images/wanted-images.ts";
import type { DockerVersion, Image } from "../docker/engine.ts";
import { OR_FROM_ARCHIVE, pullImage, wholeImage } from "../docker/whole-images.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { findInstalledNode, nameOf, type NodeKind } from "../join/installed-node.ts";
import { resolvable } from "../machine/file-errors.ts";
import { nameOfKind } from "../machine/file-reader.ts";
import { type NodeLayout, readEnvFile } from "../settings/context.ts";
import { lockNames, masterLayout, storageLayout } from "../settings/layout.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import { resolveSettings, type Settings } from "../settings/settings.ts";
import { STORAGE_SETTINGS } from "../settings/storage.ts";
import { countOf } from "../units.ts";
import type { World } from "../world.ts";

/** The flags of `images save`, as commander returns them. */
export interface SaveFlags {
  readonly baseDir?: string;
  readonly for?: NodeKind;
  readonly arch?: string;
  /** More images. */
  readonly image: readonly string[];
  readonly force: boolean;
}

const VERB = "images save";
/** What a first join needs besides the images, as in docs/offline.md. */
const JOINS_WITH: Record<NodeKind, string> = {
  master: "--provision-writer --set CLUSTERNAME=NAME",
  "storage-node": "--invite @invite.txt --fingerprint FINGERPRINT",
};
const BYTES_PER_MB = 1_000_000;
/** Headers of the tar file, and what else is written meanwhile. */
const SPARE_BYTES = 64 * 1024 ** 2;

/** `images save FILE`: what a machine without internet needs to join with `--images FILE`. Pulls what is not here. */
export async function imagesSave(given: string, flags: SaveFlags, world: World): Promise<VerbExit> {
  const { host, reporter, version } = world;
  const file = await placeOf(host, given, flags.force);
  const engine = await requireEngine(host);
  const node = await findNode(host, flags);
  const architecture = flags.arch ?? engine.architecture;
  const references = [
    ...new Set([...imagesOfKind(node.kind, await readSettings(world, node)), ...flags.image]),
  ];
  refuseDigests(references);
  const missing = await findMissing(host, node.layout, { references, architecture, engine });
  await pull(world, node.layout, { missing, architecture, engine });
  try {
    const sizes = await Promise.all(references.map((one) => host.docker.image(one)));
    await requireSpace(
      host,
      file,
      engine,
      sizes.reduce((sum, one) => sum + (one?.sizeBytes ?? 0), 0),
    );
    await host.docker.save({ references, architecture }, file, (line) => reporter.progress(line));
  } catch (thrown) {
    if (missing.length === 0 || !(thrown instanceof OperatorError)) throw thrown;
    throw thrown.withChanged(`pulled ${missing.join(", ")}; ${given} was not written.`);
  }
  const sizeBytes = (await host.files.stat(file))?.sizeBytes ?? 0;
  await reporter.close();
  const size = `${Math.max(1, Math.round(sizeBytes / BYTES_PER_MB))} MB`;
  const source = node.layout === null ? "the default settings" : node.layout.envFile;
  reporter.result({
    data: {
      verb: VERB,
      version,
      file,
      sizeBytes,
      kind: node.kind,
      architecture,
      images: references,
      pulled: missing,
      settings: node.layout?.envFile ?? null,
    },
    lines: [
      `Saved ${countOf(references.length, "image")} of a ${nameOf(node.kind)} for ${architecture}: ${file} (${size})`,
      ...reporter.table(references.map((one) => [one, missing.includes(one) ? "pulled now" : "was here"])),
      ...reporter.wrap(`Which images: by ${source}. The archive was read back: it is complete.`),
      ...reporter.table([
        [
          "On the other machine:",
          `npx --yes --offline ./fula-node-${version}.tgz join-as-${node.kind} ${JOINS_WITH[node.kind]} --images ${basename(file)}`,
        ],
        ["How to get the program there:", "docs/offline.md"],
      ]),
    ],
  });
  return "ok";
}

/** The whole path of the archive. Throws (`usage`) if it can't be written there. */
async function placeOf({ files }: HostReader, given: string, force: boolean): Promise<string> {
  const refuse = (what: string, remedy: string) => new OperatorError({ exit: "usage", what, remedy });
  if (given === "-")
    throw refuse(
      "images save does not write to standard output.",
      "Give the name of the new file, such as images.tar.",
    );
  const directory = await files.realPath(dirname(resolvable(given)));
  const name = basename(given);
  if (directory === null || (await files.stat(directory))?.kind !== "directory")
    throw refuse(
      `${dirname(given)} is not a directory on this machine, so ${given} can't be written.`,
      "Make it, or mount the disk, then run again.",
    );
  if (name === "" || name === "." || name === ".." || given.endsWith("/"))
    throw refuse(`${given} does not name a file.`, "Give the name of the new file, such as images.tar.");
  const path = `${directory === "/" ? "" : directory}/${name}`;
  const there = await files.stat(path);
  if (there === null || (there.kind === "file" && force)) return path;
  throw refuse(
    there.kind === "file"
      ? `${given} exists already.`
      : `${given} is a ${nameOfKind(there.kind)}, not a file.`,
    there.kind === "file" ? "Give another name, or --force to replace it." : "Give another name.",
  );
}

async function requireEngine({ docker }: HostReader): Promise<DockerVersion> {
  const engine = await docker.version();
  if (engine !== null) return engine;
  const why = await docker.unreachable();
  throw new OperatorError({
    exit: "unavailable",
    what: "The Docker engine of this machine does not answer, and it saves the images.",
    ...(why === null ? {} : { why }),
    remedy: "Install or start Docker (systemctl start docker), then run again.",
  });
}

/** Whose images they are; the layout is null if no such node is installed here. */
interface Node {
  readonly kind: NodeKind;
  readonly layout: NodeLayout | null;
}

async function findNode(host: HostReader, flags: SaveFlags): Promise<Node> {
  const { answer, found } = await findInstalledNode(host, flags.baseDir);
  const kind = flags.for ?? (answer === "storage-node" ? "storage-node" : "master");
  if (answer !== kind) return { kind, layout: null };
  const layout = (kind === "master" ? masterLayout : storageLayout)(found.baseDir);
  return { kind, layout: (await host.files.stat(layout.envFile)) === null ? null : layout };
}

async function readSettings({ host, version }: World, { kind, layout }: Node): Promise<Settings> {
  // A file that does not exist counts as empty: then these are the defaults.
  const saved = await readEnvFile(host, layout?.envFile ?? "/nonexistent");
  return resolveSettings(kind === "master" ? MASTER_SETTINGS : STORAGE_SETTINGS, {
    flags: new Map(),
    environment: {},
    adoptsEnvironment: false,
    saved,
    version,
  }).settings;
}

function refuseDigests(references: readonly string[]): void {
  const pinned = references.filter((reference) => reference.includes("@"));
  if (pinned.length === 0) return;
  throw new OperatorError({
    exit: "settings",
    what: `${pinned.join(", ")} can't be saved: an archive keeps the tags of images, and no digests.`,
    remedy: "Name the image by a tag in the settings of both machines.",
  });
}

interface Needs {
  readonly architecture: string;
  readonly engine: DockerVersion;
}

/**
 * The images that must be pulled. Throws (`preflight`) if an image of that name is here for another architecture: a pull would take
 * the name away from the image that this machine may run.
 */
async function findMissing(
  host: HostReader,
  layout: NodeLayout | null,
  { references, architecture, engine }: Needs & { readonly references: readonly string[] },
): Promise<readonly string[]> {
  const look = (reference: string): Promise<Image | null> =>
    layout === null ? host.docker.image(reference) : wholeImage(host, { layout }, reference);
  const images = await Promise.all(references.map(look));
  const other = references.filter((_, index) => {
    const image = images[index] ?? null;
    return image !== null && image.architecture !== "" && image.architecture !== architecture;
  });
  const isForeign = architecture !== engine.architecture;
  if (other.length > 0 || (isForeign && layout !== null))
    throw new OperatorError({
      exit: "preflight",
      what:
        other.length > 0
          ? `This machine has ${other.join(", ")} for another architecture than ${architecture}.`
          : `This machine is a node for ${engine.architecture}, so it does not pull images for ${architecture}.`,
      why: "A pull would give the names of its images to images that it can't run.",
      remedy: `Run this on a machine that is not a node, and does not have these images (docker image rm ${(other.length > 0 ? other : references).join(" ")}).`,
    });
  return references.filter((_, index) => (images[index] ?? null) === null);
}

/** On a node, under its lock: a join writes down which images it is pulling, too. */
async function pull(
  world: World,
  layout: NodeLayout | null,
  { missing, architecture, engine }: Needs & { readonly missing: readonly string[] },
): Promise<void> {
  const { host, reporter, pid } = world;
  if (missing.length === 0) return;
  const report = (line: string) => reporter.progress(line);
  if (layout === null) {
    const other = architecture === engine.architecture ? undefined : architecture;
    for (const reference of missing) await withoutArchive(() => host.docker.pull(reference, report, other));
    return;
  }
  const lock = await world.takeLock(lockNames(layout.baseDir).node, {
    pid,
    verb: VERB,
    since: host.clock.now().toISOString(),
  });
  try {
    for (const reference of missing)
      await withoutArchive(() => pullImage(host, { layout }, reference, report));
  } finally {
    await lock.release();
  }
}

/** Joins can take an archive instead of pulling. This verb makes one. */
async function withoutArchive(pullOne: () => Promise<void>): Promise<void> {
  try {
    await pullOne();
  } catch (thrown) {
    if (!(thrown instanceof OperatorError) || thrown.remedy === undefined) throw thrown;
    throw thrown.withRemedy(thrown.remedy.replace(OR_FROM_ARCHIVE, ""));
  }
}

/** The engine writes all images to its own disk before it sends them, so the space is needed twice on one disk. */
async function requireSpace(
  { files }: HostReader,
  file: string,
  { rootDirectory }: DockerVersion,
  imagesBytes: number,
): Promise<void> {
  const needed = imagesBytes + SPARE_BYTES;
  const [own, docker] = await Promise.all([
    files.space(dirname(file)),
    files.space(rootDirectory === "" ? "/var/lib/docker" : rootDirectory),
  ]);
  const isOneDisk = own.totalBytes === docker.totalBytes && own.freeBytes === docker.freeBytes;
  const lacking = [
    ...(own.freeBytes < needed * (isOneDisk ? 2 : 1)
      ? [{ place: dirname(file), free: own.freeBytes, needed: needed * (isOneDisk ? 2 : 1) }]
      : []),
    ...(!isOneDisk && docker.freeBytes < needed
      ? [{ place: rootDirectory, free: docker.freeBytes, needed }]
      : []),
  ];
  const [first] = lacking;
  if (first === undefined) return;
  const mb = (bytes: number) => `${Math.ceil(bytes / BYTES_PER_MB)} MB`;
  throw new OperatorError({
    exit: "preflight",
    what: `${first.place} has ${mb(first.free)} free, and the archive needs up to ${mb(first.needed)}.`,
    ...(isOneDisk || first.place !== dirname(file)
      ? { why: "Docker writes all images to its own disk before it sends them." }
      : {}),
    remedy: `Free some space${first.place === dirname(file) ? ", or give a file on another disk" : ""}, then run again.`,
  });
}
