import { readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { OperatorError, messageOf } from "../errors.ts";
import { findSnapshots, partsOf } from "../model/snapshot-files.ts";
import type { SnapshotParts } from "../model/snapshot-files.ts";
import { readBody } from "./snapshot-reader.ts";
import type { BodyEncoding, BodyReading } from "./snapshot-reader.ts";

export type { BodyReading } from "./snapshot-reader.ts";

/** One snapshot on the disk, ours or upstream's; nothing of it has been checked yet. */
export interface SnapshotFile {
  readonly layout: SnapshotParts["layout"];
  readonly name: string;
  readonly directory: string;
  /** Base names of its files; the signature's is the one that is there, or the first it may have. */
  readonly bodyFile: string;
  readonly manifestFile: string | null;
  readonly signatureFile: string;
  /** Null: it is not there. */
  readonly manifest: Buffer | null;
  readonly signature: Buffer | null;
  readonly hasBody: boolean;
  /** The bytes that upstream's signature is over: the whole file. Throws an OperatorError for one too large to be signed so. */
  signedBody(): Promise<Buffer>;
  /** Reads the body, once more at each call; see readBody. */
  read(options?: Parameters<typeof readBody>[2]): Promise<BodyReading>;
}

/** A raw ed25519 signature is 64 bytes; a file that is much larger is something else. */
const MOST_SIGNATURE_BYTES = 4096;
const MOST_MANIFEST_BYTES = 1024 * 1024;
/** OpenSSL takes the message of a pure ed25519 signature in one piece of less than 2 GiB. */
const MOST_SIGNED_BYTES = 2 ** 31 - 1;

/**
 * Finds the snapshot that a path belongs to: any of its files, or its bare name. Throws an OperatorError
 * (`usage`) where nothing of it is there.
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
      remedy: "Give one of its files, or its name: `fula-node snapshot list` shows what there is.",
    });
  }
  return openParts(directory, parts, names);
}

/** All snapshots of a directory by name, ours and upstream's; none where it is absent. */
export async function listSnapshotFiles(directory: string): Promise<readonly SnapshotFile[]> {
  const names = await namesIn(directory);
  return Promise.all(findSnapshots(names).map((parts) => openParts(directory, parts, names)));
}

async function openParts(
  directory: string,
  parts: SnapshotParts,
  names: readonly string[],
): Promise<SnapshotFile> {
  const signatureFile = parts.signatures.find((file) => names.includes(file)) ?? parts.signatures[0] ?? "";
  const small = (file: string, most: number): Promise<Buffer | null> =>
    names.includes(file) ? readSmall(join(directory, file), most) : Promise.resolve(null);
  const encoding: BodyEncoding = parts.layout === "ours" ? "gzip" : "json";
  const bodyPath = join(directory, parts.body);
  return {
    layout: parts.layout,
    name: parts.name,
    directory,
    bodyFile: parts.body,
    manifestFile: parts.manifest,
    signatureFile,
    manifest: parts.manifest === null ? null : await small(parts.manifest, MOST_MANIFEST_BYTES),
    signature: await small(signatureFile, MOST_SIGNATURE_BYTES),
    hasBody: names.includes(parts.body),
    signedBody: () => readSmall(bodyPath, MOST_SIGNED_BYTES),
    read: (options) => readBody(bodyPath, encoding, options),
  };
}

async function namesIn(directory: string): Promise<readonly string[]> {
  try {
    return await readdir(directory);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw unreadable(directory, messageOf(cause), cause);
  }
}

async function readSmall(path: string, mostBytes: number): Promise<Buffer> {
  try {
    const { size } = await stat(path);
    if (size > mostBytes) throw unreadable(path, `it has ${size} bytes, more than ${mostBytes}`);
    return await readFile(path);
  } catch (cause) {
    throw cause instanceof OperatorError ? cause : unreadable(path, messageOf(cause), cause);
  }
}

function unreadable(path: string, why: string, cause?: unknown): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `${path} can't be read: ${why}.`,
    remedy: "Look at the file and its file system.",
    cause,
  });
}
