import { constants, type Stats } from "node:fs";
import { type FileHandle, lstat, open, readdir } from "node:fs/promises";
import { WRITER_SCRIPTS } from "../docker/compose-document.ts";
import { OperatorError } from "../errors.ts";
import { codeOf, fileError, isAbsence } from "../machine/file-errors.ts";
import type { SnapshotFile } from "../pinset/snapshot/store.ts";
import { type MasterLayout, TAKEN_OVER, WRITER_IDENTITY } from "../settings/layout.ts";
import type { ArchiveEntry } from "./archive-writer.ts";

/** Where the entries of an archive belong. */
export const PLACES = { base: "base", writer: "writer", database: "database" } as const;

/** A file or a directory that goes into an archive, open as it was at one moment. */
export interface OpenFile extends Omit<ArchiveEntry, "body"> {
  /** Null for a directory. */
  readonly handle: FileHandle | null;
}

/** Of the writer: who it is, and how kubo's store is laid out. Blocks and the pinset are not in it. */
const WRITER_FILES = [
  "docker-compose.yml",
  ...Object.values(WRITER_SCRIPTS),
  TAKEN_OVER,
  "kubo/config",
  "kubo/config.fula-node",
  "kubo/version",
  "kubo/datastore_spec",
  "kubo/swarm.key",
  "kubo/keystore",
  WRITER_IDENTITY,
  "ipfs-cluster/service.json",
] as const;

const READ_BYTES = 256 * 1024;
/** A snapshot is taken within seconds, and retention then removes some. */
const MOST_LOOKS = 10;

/** What of the base directory goes into an archive; the snapshots come apart. */
function basePaths(layout: MasterLayout): readonly string[] {
  const { envFile, composeFile, signingKey, verifyingKey, knownNodes, edgeKnown } = layout;
  const { adoptedDir, edgeDir, postgresTlsDir, snapshotMemory } = layout;
  const state = snapshotMemory.slice(0, snapshotMemory.lastIndexOf("/"));
  const files = [envFile, composeFile, signingKey, verifyingKey, knownNodes, edgeKnown];
  const trees = [adoptedDir, edgeDir, postgresTlsDir, state];
  return [...files, ...trees].map((path) => path.slice(layout.baseDir.length + 1));
}

/**
 * Opens everything of a master that goes into an archive. What is replaced later keeps its content here. `readMemory` says what the
 * master remembers of its snapshots: they and that record are of one moment.
 */
export async function openNodeFiles(
  { layout, writerDir }: { readonly layout: MasterLayout; readonly writerDir: string | null },
  chooseSnapshots: () => Promise<readonly SnapshotFile[]>,
  readMemory: () => Promise<string | null>,
): Promise<{ readonly files: readonly OpenFile[]; readonly snapshots: readonly SnapshotFile[] }> {
  for (let looks = 1; ; looks += 1) {
    const files: OpenFile[] = [];
    try {
      const before = await readMemory();
      const snapshots = await chooseSnapshots();
      for (const path of basePaths(layout)) await openTree(layout.baseDir, path, PLACES.base, files);
      for (const path of writerDir === null ? [] : WRITER_FILES)
        await openTree(writerDir ?? "", path, PLACES.writer, files);
      const inBase = layout.snapshotsDir.slice(layout.baseDir.length + 1);
      for (const { bodyFile, manifestFile, signatureFile } of snapshots)
        for (const name of [bodyFile, manifestFile ?? "", signatureFile])
          await openTree(layout.baseDir, `${inBase}/${name}`, PLACES.base, files, true);
      if ((await readMemory()) === before) return { files, snapshots };
      throw new MovedError();
    } catch (thrown) {
      await closeAll(files);
      if (!(thrown instanceof MovedError)) throw thrown;
      if (looks < MOST_LOOKS) continue;
      throw new OperatorError({
        exit: "unavailable",
        what: "The snapshots changed each time that they were read.",
        remedy: "Wait until no snapshot is taken, then run again.",
      });
    }
  }
}

/** Something was taken or removed meanwhile. */
class MovedError extends Error {}

/** Closes what was opened. */
export async function closeAll(files: readonly OpenFile[]): Promise<void> {
  for (const { handle } of files) await handle?.close();
}

/** Adds a file, or a directory with all that is in it. What is not there is left out, unless it must be. */
async function openTree(
  root: string,
  path: string,
  place: string,
  files: OpenFile[],
  isNeeded = false,
): Promise<void> {
  const whole = `${root}/${path}`;
  try {
    const kind = await lstat(whole);
    if (!kind.isDirectory()) {
      // A container can write to the directories of the writer: neither its link nor its pipe leads us anywhere.
      const handle = await open(
        whole,
        constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
      ).catch((thrown: unknown) => {
        throw ["ELOOP", "ENXIO"].includes(codeOf(thrown) ?? "") ? notAFile(whole) : thrown;
      });
      const stats = await handle.stat();
      files.push({ ...entryOf(`${place}/${path}`, stats), kind: "file", bytes: stats.size, handle });
      if (!stats.isFile()) throw notAFile(whole);
      return;
    }
    files.push({ ...entryOf(`${place}/${path}`, kind), kind: "directory", bytes: 0, handle: null });
    for (const name of (await readdir(whole)).toSorted())
      // What another program is about to write, and what a killed one left.
      if (!name.startsWith(".")) await openTree(root, `${path}/${name}`, place, files);
  } catch (thrown) {
    if (isAbsence(thrown) && isNeeded) throw new MovedError();
    if (isAbsence(thrown)) return;
    throw thrown instanceof MovedError ? thrown : fileError("read", whole, thrown);
  }
}

function notAFile(path: string): OperatorError {
  return new OperatorError({
    exit: "foreign",
    what: `${path} is not a file, so it can't be backed up.`,
    why: "A link could lead to what is not of this master.",
    remedy: "Move it away, then run again.",
  });
}

function entryOf(
  name: string,
  { mode, uid, gid }: Stats,
): Pick<ArchiveEntry, "name" | "mode" | "uid" | "gid"> {
  return { name, mode: mode & 0o7777, uid, gid };
}

/** The entries of what was opened. Each body is read once. */
export function entriesOf(files: readonly OpenFile[]): readonly ArchiveEntry[] {
  return files.map(({ handle, ...entry }) => ({
    ...entry,
    body: handle === null ? [] : readExactly(handle, entry),
  }));
}

async function* readExactly(
  handle: FileHandle,
  { name, bytes }: Pick<ArchiveEntry, "name" | "bytes">,
): AsyncGenerator<Buffer, void, undefined> {
  for (let at = 0; at < bytes;) {
    const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, bytes - at));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, at).catch((thrown: unknown) => {
      throw fileError("read", name, thrown);
    });
    if (bytesRead === 0)
      throw new OperatorError({
        exit: "unavailable",
        what: `${name} became shorter while it was read.`,
        remedy: "Run again.",
      });
    at += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}

/** The peer ids in the configurations of kubo and ipfs-cluster; null for one that is not there. Throws (`drift`) for one that is broken. */
export async function readPeerIds(
  files: readonly OpenFile[],
): Promise<{ readonly kubo: string | null; readonly cluster: string | null }> {
  const read = async (name: string, idOf: (value: Record<string, unknown>) => unknown) => {
    const handle = files.find((one) => one.name === `${PLACES.writer}/${name}`)?.handle ?? null;
    if (handle === null) return null;
    try {
      const { size } = await handle.stat();
      const buffer = Buffer.alloc(size);
      await handle.read(buffer, 0, size, 0);
      const id = idOf(JSON.parse(buffer.toString("utf8")) as Record<string, unknown>);
      if (typeof id === "string" && id !== "") return id;
    } catch (thrown) {
      if (codeOf(thrown) !== undefined) throw fileError("read", name, thrown);
    }
    throw new OperatorError({
      exit: "drift",
      what: `The writer's ${name} has no peer id: a backup of it could not bring the peer back.`,
      remedy: "See how the writer stands (fula-node status), then run again.",
    });
  };
  return {
    kubo: await read("kubo/config", ({ Identity }) => (Identity as { PeerID?: unknown } | undefined)?.PeerID),
    cluster: await read(WRITER_IDENTITY, ({ id }) => id),
  };
}
