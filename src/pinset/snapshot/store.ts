import { createHash } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import { open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { messageOf, OperatorError } from "../../errors.ts";
import { makeDirectories, sync } from "../../machine/file-writer.ts";
import {
  type BodyEncoding,
  type BodyReading,
  readBody,
  type SignedBody,
  type TakeBodyLines,
} from "../body-reader.ts";
import { type BodyFacts, BodyWriter } from "../body-writer.ts";
import { findSnapshots, partsOf, snapshotFiles, type SnapshotParts } from "./manifest.ts";

export type { BodyFacts } from "../body-writer.ts";

/** A snapshot that is being written. Its files get their final names only at commit. */
interface SnapshotDraft {
  /** Writes whole lines of pins. If it returns a promise, wait for it before the next call. */
  write(lines: Buffer): void | Promise<void>;
  finish(): Promise<BodyFacts>;
  /** Reads back the lines that were written, after finish. */
  read(takeLines: TakeBodyLines): Promise<void>;
  /** Gives all three files their final names: first the body, then the manifest, the signature last. */
  commit(manifest: Uint8Array, signature: Uint8Array): Promise<void>;
  /** Removes what was written. It can be called after a failure of any method above. */
  discard(): Promise<void>;
}

/** The directory of a machine's snapshots. Every failure is an OperatorError (unavailable). */
export interface SnapshotStore {
  readonly directory: string;
  /** Every snapshot of our own layout, by name. An absent directory counts as empty. */
  list(): Promise<readonly SnapshotFile[]>;
  /** The sha256 of bytes, as hex. */
  sha256(bytes: Uint8Array): string;
  /** The sha256 of a body's file, as hex, or null if the file does not exist. */
  hashBody(name: string): Promise<string | null>;
  /** Begins a snapshot. Removes what an interrupted run left: its temporary files, and a snapshot whose commit did not end. */
  begin(name: string): Promise<SnapshotDraft>;
  /** Removes the files of one snapshot, signature first. */
  remove(name: string): Promise<void>;
}

const PARTIAL = ".partial";

/** Opens a directory of snapshots. Nothing is created before `begin` is called. */
export function openSnapshotStore(directory: string): SnapshotStore {
  return {
    directory,
    sha256: (bytes) => createHash("sha256").update(bytes).digest("hex"),
    list: async () => (await listSnapshotFiles(directory)).filter(({ layout }) => layout === "ours"),
    hashBody: (name) => guarded(directory, "read", () => hashFile(join(directory, snapshotFiles(name).body))),
    begin: (name) => guarded(directory, "write to", () => begin(directory, name)),
    remove: (name) =>
      guarded(directory, "remove a snapshot from", async () => {
        const files = snapshotFiles(name);
        for (const file of [files.signature, files.manifest, files.body]) {
          await rm(join(directory, file), { force: true });
        }
        await sync(directory);
      }),
  };
}

async function begin(directory: string, name: string): Promise<SnapshotDraft> {
  await makeDirectories(directory, 0o700);
  await removeUnfinished(directory);
  const files = snapshotFiles(name);
  const hidden = (file: string): string => join(directory, hiddenName(file));
  const body = await BodyWriter.create(hidden(files.body));
  return {
    write: (lines) => {
      const pending = body.write(lines);
      return pending?.catch((cause: unknown) => {
        throw diskError(directory, "write to", cause);
      });
    },
    finish: () => guarded(directory, "write to", () => body.finish()),
    read: async (takeLines) => void (await readBody(hidden(files.body), "gzip", { takeLines })),
    commit: (manifest, signature) =>
      guarded(directory, "write to", async () => {
        await writeSynced(hidden(files.manifest), manifest);
        await writeSynced(hidden(files.signature), signature);
        // Until the last rename the hidden signature says that the commit has not ended: it is on the disk before the first one.
        await sync(directory);
        for (const file of [files.body, files.manifest, files.signature]) {
          await rename(hidden(file), join(directory, file));
        }
        await sync(directory);
      }),
    discard: async () => {
      await body.abandon();
      await removeUnfinished(directory);
    },
  };
}

const hiddenName = (file: string): string => `.${file}${PARTIAL}`;

/** Whether a commit of this snapshot has begun and has not ended: its signature, the last one to get its name, is still hidden. */
function isUnfinished(name: string, names: readonly string[]): boolean {
  const { signature } = snapshotFiles(name);
  return names.includes(hiddenName(signature)) && !names.includes(signature);
}

/** Removes what was written and not committed. A hidden signature goes last: it says which files with a final name belong to it. */
async function removeUnfinished(directory: string): Promise<void> {
  const names = await readdir(directory);
  const hidden = names.filter((name) => name.startsWith(".pinset-") && name.endsWith(PARTIAL));
  const named = findSnapshots(names).filter(
    ({ layout, name }) => layout === "ours" && isUnfinished(name, names),
  );
  const last = hidden.filter((file) => file.endsWith(`.manifest.sig${PARTIAL}`));
  const first = hidden.filter((file) => !last.includes(file));
  for (const file of [...named.flatMap(({ manifest, body }) => [manifest ?? body, body]), ...first, ...last])
    await rm(join(directory, file), { force: true });
}

async function writeSynced(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, "wx", 0o600);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function hashFile(path: string): Promise<string | null> {
  const sha256 = createHash("sha256");
  try {
    await pipeline(createReadStream(path, { highWaterMark: 1024 * 1024 }), sha256);
  } catch (cause) {
    return valueIfAbsent(null)(cause);
  }
  return sha256.digest("hex");
}

function valueIfAbsent<T>(value: T): (cause: unknown) => T {
  return (cause) => {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return value;
    throw cause;
  };
}

async function guarded<T>(directory: string, verb: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw diskError(directory, verb, cause);
  }
}

function diskError(directory: string, verb: string, cause: unknown): OperatorError {
  if (cause instanceof OperatorError) return cause;
  const code = (cause as NodeJS.ErrnoException).code;
  const full = code === "ENOSPC" || code === "EDQUOT";
  return new OperatorError({
    exit: "unavailable",
    what: full
      ? `The disk that holds ${directory} is full.`
      : `fula-node could not ${verb} ${directory}: ${messageOf(cause)}.`,
    remedy: full
      ? "Free some space there (lower KEEP, or move old snapshots away), then run this again."
      : "Check the directory and its file system, then run this again.",
    cause,
  });
}

export type { BodyReading } from "../body-reader.ts";

/** One snapshot on the disk, in our layout or upstream's. Nothing of it has been checked yet. */
export interface SnapshotFile {
  readonly layout: SnapshotParts["layout"];
  readonly name: string;
  readonly directory: string;
  /** Base names of its files. The signature's name is the one that exists, or else the first possible one. */
  readonly bodyFile: string;
  readonly manifestFile: string | null;
  readonly signatureFile: string;
  /** Null if the file does not exist. */
  readonly manifest: Buffer | null;
  readonly signature: Buffer | null;
  /** Size of the body's file; null if it does not exist. */
  readonly bodyBytes: number | null;
  /** The path and the format of the body. */
  readonly bodyPath: string;
  readonly encoding: BodyEncoding;
  /** The bytes that upstream's signature covers: the whole file. Throws an OperatorError if the file is too large for such a signature. */
  signedBody(): Promise<Buffer>;
  /** Reads the body; each call reads the file again. See readBody. */
  read(options?: { readonly takeLines?: TakeBodyLines; readonly signed?: SignedBody }): Promise<BodyReading>;
}

/** A raw ed25519 signature has 64 bytes. A file that is much larger is something else. */
const MAX_SIGNATURE_BYTES = 4096;
const MAX_MANIFEST_BYTES = 1024 * 1024;
/** OpenSSL needs the message of a pure ed25519 signature in one piece of less than 2 GiB. */
const MAX_SIGNED_BYTES = 2 ** 31 - 1;

/**
 * Finds the snapshot that a path belongs to. The path is one of its files, or its name without an ending.
 * Throws an OperatorError (`usage`) if none of its files exists.
 */
export async function openSnapshotFile(path: string): Promise<SnapshotFile> {
  const directory = dirname(resolve(path));
  const names = await namesIn(directory);
  let parts = partsOf(basename(path));
  if (
    !names.includes(basename(path)) &&
    !names.includes(parts.body) &&
    names.includes(`${basename(path)}.json`)
  )
    parts = partsOf(`${basename(path)}.json`);
  const present = [parts.body, parts.manifest, ...parts.signatures].some(
    (file) => file !== null && names.includes(file),
  );
  if (!present) {
    throw new OperatorError({
      exit: "usage",
      what: `There is no snapshot ${path}.`,
      remedy:
        "Give the name of a snapshot, or one of its files. `fula-node snapshot list` shows the existing ones.",
    });
  }
  return openParts(directory, parts, names);
}

/**
 * All snapshots of a directory by name, in our layout and upstream's, without one whose commit has not ended. Empty if the directory
 * does not exist.
 */
export async function listSnapshotFiles(directory: string): Promise<readonly SnapshotFile[]> {
  const names = await namesIn(directory);
  const found = findSnapshots(names).filter(
    ({ layout, name }) => layout !== "ours" || !isUnfinished(name, names),
  );
  return Promise.all(found.map((parts) => openParts(directory, parts, names)));
}

async function openParts(
  directory: string,
  parts: SnapshotParts,
  names: readonly string[],
): Promise<SnapshotFile> {
  const signatureFile = parts.signatures.find((file) => names.includes(file)) ?? parts.signatures[0] ?? "";
  const readIfPresent = (file: string, maxBytes: number): Promise<Buffer | null> =>
    names.includes(file) ? readStart(join(directory, file), maxBytes) : Promise.resolve(null);
  const encoding: BodyEncoding = parts.layout === "ours" ? "gzip" : "json";
  const bodyPath = join(directory, parts.body);
  return {
    layout: parts.layout,
    name: parts.name,
    directory,
    bodyFile: parts.body,
    manifestFile: parts.manifest,
    signatureFile,
    manifest: parts.manifest === null ? null : await readIfPresent(parts.manifest, MAX_MANIFEST_BYTES),
    signature: await readIfPresent(signatureFile, MAX_SIGNATURE_BYTES),
    bodyBytes: names.includes(parts.body) ? await sizeOf(bodyPath) : null,
    bodyPath,
    encoding,
    signedBody: () => readSmall(bodyPath, MAX_SIGNED_BYTES),
    read: (options) => readBody(bodyPath, encoding, options),
  };
}

async function sizeOf(path: string): Promise<number | null> {
  try {
    return (await stat(path)).size;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw unreadable(path, messageOf(cause), cause);
  }
}

async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw unreadable(directory, messageOf(cause), cause);
  }
}

/**
 * The first bytes of a file; null if there is something else than a file. What does not fit is damaged, and fails its
 * signature: one such file must not stop the work with the others.
 */
async function readStart(path: string, maxBytes: number): Promise<Buffer | null> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stats = await file.stat();
      if (!stats.isFile()) return null;
      const bytes = Buffer.alloc(Math.min(stats.size, maxBytes));
      let used = 0;
      for (let got = -1; used < bytes.length && got !== 0; used += got)
        got = (await file.read(bytes, used, bytes.length - used, used)).bytesRead;
      return bytes.subarray(0, used);
    } finally {
      await file.close();
    }
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw unreadable(path, messageOf(cause), cause);
  }
}

/** Opened so that a pipe in the place of the file does not block for ever. */
async function readSmall(path: string, maxBytes: number): Promise<Buffer> {
  try {
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stats = await file.stat();
      if (!stats.isFile()) throw unreadable(path, "it is not a file");
      if (stats.size > maxBytes)
        throw unreadable(path, `it has ${stats.size} bytes, and the limit is ${maxBytes}`);
      return await file.readFile();
    } finally {
      await file.close();
    }
  } catch (cause) {
    throw cause instanceof OperatorError ? cause : unreadable(path, messageOf(cause), cause);
  }
}

function unreadable(path: string, why: string, cause?: unknown): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `${path} cannot be read: ${why}.`,
    remedy: "Check the file and its file system.",
    cause,
  });
}
