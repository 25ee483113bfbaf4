import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { posix } from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import type { Headers } from "tar-stream";
import { messageOf, OperatorError } from "../../errors.ts";
import { codeOf, fileError } from "../../machine/file-errors.ts";
import type { ArchivedImage, DockerReader } from "../engine.ts";
import { type ArchiveEntry, findAltered, imagesOf, isImageArchive } from "./archive-images.ts";

/** No list and no description of an image is longer. */
const MAX_TEXT_BYTES = 4 * 1024 ** 2;
/** Of all such texts of one archive. */
const MAX_TEXTS_BYTES = 64 * 1024 ** 2;
/** Images have some hundred files. */
const MAX_ENTRIES = 100_000;
const END_BYTES = 1024;
const REMEDY = "Make it again with fula-node images save, or copy it again, then run again.";

/** How a compressed file begins, and what makes it plain again. */
const PACKED: readonly (readonly [name: string, magic: string, command: string])[] = [
  ["gzip", "1f8b", "gunzip"],
  ["bzip2", "425a68", "bunzip2"],
  ["xz", "fd377a585a00", "unxz"],
  ["zstd", "28b52ffd", "unzstd"],
];

/** Reads archives. What was read once is not read again while the file stays the same: a run looks several times. */
export function archiveReader(): DockerReader["readArchive"] {
  const known = new Map<string, Promise<readonly ArchivedImage[]>>();
  return async (path) => {
    const { ino, size, mtimeMs, magic } = await lookAt(path);
    const key = [path, ino, size, mtimeMs].join("\0");
    const images = known.get(key) ?? readImages(path, magic);
    known.set(key, images);
    return images;
  };
}

async function lookAt(path: string) {
  try {
    const file = await open(path);
    try {
      const { ino, size, mtimeMs } = await file.stat();
      const { bytesRead, buffer } = await file.read(Buffer.alloc(8), 0, 8, 0);
      return { ino, size, mtimeMs, magic: buffer.subarray(0, bytesRead).toString("hex") };
    } finally {
      await file.close();
    }
  } catch (thrown) {
    throw fileError("read", path, thrown);
  }
}

/** Reads the whole archive once, in constant memory. Compares every file with the digest that names it. */
async function readImages(path: string, magic: string): Promise<readonly ArchivedImage[]> {
  const [packed, , unpack] = PACKED.find(([, start]) => magic.startsWith(start)) ?? [null, "", ""];
  if (packed !== null && packed !== "gzip")
    throw new OperatorError({
      exit: "usage",
      what: `${path} is compressed with ${packed}, which fula-node can't check.`,
      remedy: `Make it plain (${unpack} ${path}), or compress it with gzip, then run again.`,
    });
  const { default: tar } = await import("tar-stream");
  const extract = tar.extract();
  const entries = new Map<string, ArchiveEntry>();
  const room = { textBytes: MAX_TEXTS_BYTES };
  let hasBegun = false;
  extract.on("entry", (header, content: AsyncIterable<Buffer>, next) => {
    hasBegun = true;
    readEntry(header, content, room).then((entry) => {
      if (entry !== null) entries.set(tidy(header.name), entry);
      next(entries.size > MAX_ENTRIES ? new Error("it has too many files") : undefined);
    }, next);
  });
  const end = new EndOfTar();
  try {
    const file = createReadStream(path);
    await (packed === null ? pipeline(file, end, extract) : pipeline(file, createGunzip(), end, extract));
  } catch (thrown) {
    throw unreadable(path, thrown, hasBegun);
  }
  if (!hasBegun) throw noImages(path, "It is not a tar file, or it is empty.");
  if (!end.isThere) throw cutOff(path, "It has no end.");
  if (!isImageArchive(entries)) throw noImages(path, "It has neither manifest.json nor index.json.");
  const altered = findAltered(entries);
  if (altered === null) return imagesOf(entries);
  throw new OperatorError({
    exit: "integrity",
    what: `${path} was altered, or is damaged.`,
    why: `The content of ${altered} in it has another checksum than its image says.`,
    remedy: REMEDY,
  });
}

/** The digest of one file of the archive, and its text if it can be JSON. Null for a directory. */
async function readEntry(
  { type, size = 0, name, linkname }: Headers,
  content: AsyncIterable<Buffer>,
  room: { textBytes: number },
): Promise<ArchiveEntry | null> {
  const hash = createHash("sha256");
  const kept: Buffer[] = [];
  let first: Buffer | null = null;
  for await (const chunk of content) {
    hash.update(chunk);
    first ??= chunk;
    const isText =
      size <= MAX_TEXT_BYTES && size <= room.textBytes && (first[0] === 0x7b || first[0] === 0x5b);
    if (isText) kept.push(chunk);
  }
  if (type === "directory") return null;
  if (kept.length > 0) room.textBytes -= size;
  const start = first?.subarray(0, 4).toString("hex") ?? "";
  return {
    digest: hash.digest("hex"),
    text: kept.length === 0 ? null : Buffer.concat(kept).toString("utf8"),
    isPacked: PACKED.some(([, magic]) => start.startsWith(magic.slice(0, 8))),
    target: targetOf(type, tidy(name), linkname ?? ""),
  };
}

/** A symbolic link is relative to its directory, a hard link to the archive. */
function targetOf(type: Headers["type"], name: string, target: string): string | null {
  if (type === "symlink") return posix.join(posix.dirname(name), target);
  return type === "link" ? tidy(target) : null;
}

function tidy(name: string): string {
  return posix.normalize(name).replace(/^\/+/, "");
}

/** Passes a tar file on, and knows whether it ended as one: with two blocks of zeros. */
class EndOfTar extends Transform {
  #last = Buffer.alloc(0);

  get isThere(): boolean {
    return this.#last.length === END_BYTES && this.#last.every((byte) => byte === 0);
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: (error: null, data: Buffer) => void) {
    this.#last = Buffer.concat([this.#last, chunk.subarray(-END_BYTES)]).subarray(-END_BYTES);
    done(null, chunk);
  }
}

function unreadable(path: string, thrown: unknown, hasBegun: boolean): OperatorError {
  if (/^E(?!RR_)/.test(codeOf(thrown) ?? "")) return fileError("read", path, thrown);
  const why = messageOf(thrown);
  if (!hasBegun) return noImages(path, "It is not a tar file, or it is empty.");
  if (/unexpected end/i.test(why)) return cutOff(path, "It ends in the middle of a file.");
  return new OperatorError({
    exit: "integrity",
    what: `${path} was altered, or is damaged.`,
    why: `It can be read only in part: ${why}.`,
    remedy: REMEDY,
    cause: thrown,
  });
}

function cutOff(path: string, why: string): OperatorError {
  return new OperatorError({ exit: "integrity", what: `${path} was cut off.`, why, remedy: REMEDY });
}

function noImages(path: string, why: string): OperatorError {
  return new OperatorError({
    exit: "usage",
    what: `${path} is not an archive of images.`,
    why,
    remedy: "Pass a file that fula-node images save, or docker save, wrote.",
  });
}
