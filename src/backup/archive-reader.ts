import { createHash } from "node:crypto";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip } from "node:zlib";
import tar from "tar-stream";
import { OperatorError } from "../errors.ts";
import {
  type BackupContents,
  type BackupManifest,
  damaged,
  FIRST_ENTRY,
  LAST_ENTRY,
  parseBackupManifest,
  parseContents,
} from "./backup-manifest.ts";

/** The head of one entry while an archive is read. */
export interface EntryHead {
  readonly name: string;
  readonly kind: "file" | "directory";
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly bytes: number;
}

/** Takes the body of an entry, chunk by chunk; a promise holds up the next one. */
export interface EntrySink {
  write(chunk: Buffer): void | Promise<void>;
  end(): Promise<void>;
}

/** What happens to the entries. It is told of each one as it comes, before the archive is known to be whole. */
export interface ArchiveVisitor {
  manifest(manifest: BackupManifest): void | Promise<void>;
  /** Null: the entry is only checked. */
  entry(head: EntryHead): Promise<EntrySink | null>;
}

/** What was read. */
export interface ReadArchive {
  readonly manifest: BackupManifest;
  readonly entries: number;
  /** Of all bodies together. */
  readonly bytes: number;
}

/** The list of a database in so many parts that a part fits in memory. */
const MAX_LIST_BYTES = 64 * 1024 ** 2;
const MAX_MANIFEST_BYTES = 1024 ** 2;

/**
 * Reads the plain bytes of an archive to their end, and checks them against the list at the end. Throws (`integrity`) if anything is
 * missing, more or different; (`newer`) for a later format.
 */
export async function readArchive(
  plain: AsyncIterable<Uint8Array>,
  visitor: ArchiveVisitor,
): Promise<ReadArchive> {
  const reading = new Reading(visitor);
  const extract = tar.extract();
  let fault: unknown = null;
  extract.on("entry", (header, stream, next) => {
    reading.take(header, stream).then(
      () => next(),
      (thrown: unknown) => {
        fault ??= thrown;
        next(thrown);
      },
    );
  });
  try {
    await pipeline(plain, createGunzip({ chunkSize: 256 * 1024 }), extract);
  } catch (thrown) {
    // A full disk on the way out is no damage of the archive.
    if (reading.failure !== null) throw reading.failure.cause;
    const cause = fault ?? thrown;
    if (cause instanceof OperatorError || cause instanceof TypeError) throw cause;
    throw damaged("it can't be unpacked: it was changed or cut off", cause);
  }
  return reading.finish();
}

class Reading {
  readonly #visitor: ArchiveVisitor;
  readonly #seen: BackupContents["entries"][number][] = [];
  #manifest: BackupManifest | null = null;
  #contents: BackupContents | null = null;
  /** What the visitor itself failed with. */
  failure: { readonly cause: unknown } | null = null;

  constructor(visitor: ArchiveVisitor) {
    this.#visitor = visitor;
  }

  async take(header: tar.Headers, stream: Readable): Promise<void> {
    const { size = 0, type } = header;
    const name = type === "directory" ? header.name.replace(/\/$/, "") : header.name;
    if (this.#contents !== null) throw damaged(`it has more than its list: ${name}`);
    if (this.#manifest === null && name !== FIRST_ENTRY)
      throw damaged(`it does not begin with ${FIRST_ENTRY}`);
    if (type !== "file" && type !== "directory") throw damaged(`${name} is neither a file nor a directory`);
    if (!isPlainName(name)) throw damaged(`the name ${JSON.stringify(name)} leads out of it`);
    const sha256 = createHash("sha256");
    if (name === FIRST_ENTRY) {
      if (this.#manifest !== null) throw damaged(`it has ${FIRST_ENTRY} twice`);
      const text = await readText(stream, { sha256, name, size, max: MAX_MANIFEST_BYTES });
      this.#manifest = parseBackupManifest(text);
      await this.#visit(this.#visitor.manifest(this.#manifest));
    } else if (name === LAST_ENTRY) {
      this.#contents = parseContents(await readText(stream, { sha256, name, size, max: MAX_LIST_BYTES }));
      return;
    } else {
      const { mode = 0o600, uid = 0, gid = 0 } = header;
      const sink = await this.#visit(this.#visitor.entry({ name, kind: type, mode, uid, gid, bytes: size }));
      await drain(stream, (chunk) => {
        sha256.update(chunk);
        const busy = sink?.write(chunk);
        return busy === undefined ? undefined : this.#visit(busy);
      });
      await this.#visit(sink?.end());
    }
    this.#seen.push({ name, bytes: size, sha256: sha256.digest("hex") });
  }

  async #visit<Result>(work: Result | Promise<Result>): Promise<Result> {
    try {
      return await work;
    } catch (cause) {
      this.failure ??= { cause };
      throw cause;
    }
  }

  finish(): ReadArchive {
    if (this.#manifest === null) throw damaged("it is empty");
    if (this.#contents === null) throw damaged(`its list, ${LAST_ENTRY}, is missing: it was cut off`);
    const { entries } = this.#contents;
    for (const [index, seen] of this.#seen.entries()) {
      const listed = entries[index];
      if (listed?.name !== seen.name) throw damaged(`${seen.name} is not in its list at this place`);
      if (listed.bytes !== seen.bytes || listed.sha256 !== seen.sha256)
        throw damaged(`${seen.name} is not what its list says`);
    }
    const missing = entries[this.#seen.length];
    if (missing !== undefined) throw damaged(`${missing.name} is in its list, but not in it`);
    const bytes = this.#seen.reduce((sum, one) => sum + one.bytes, 0);
    return { manifest: this.#manifest, entries: this.#seen.length, bytes };
  }
}

/** A name that can only be below the directory that it is unpacked in. */
function isPlainName(name: string): boolean {
  return name
    .split("/")
    .every((part) => part !== "" && part !== "." && part !== ".." && !part.includes("\0"));
}

async function readText(
  stream: Readable,
  given: {
    readonly sha256: ReturnType<typeof createHash>;
    readonly name: string;
    readonly size: number;
    readonly max: number;
  },
): Promise<string> {
  if (given.size > given.max) throw damaged(`${given.name} has ${given.size} bytes`);
  const chunks: Buffer[] = [];
  await drain(stream, (chunk) => {
    given.sha256.update(chunk);
    chunks.push(chunk);
  });
  return Buffer.concat(chunks).toString("utf8");
}

/**
 * Reads a stream of tar-stream to its end, one chunk after the other. Such a stream may end, or give one more chunk, while it is paused;
 * and it says only by `close` that it was given up.
 */
function drain(stream: Readable, take: (chunk: Buffer) => void | Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    let pending: Promise<void> | null = null;
    let isEnded = false;
    stream.on("data", (chunk: Buffer) => {
      const busy = pending === null ? take(chunk) : pending.then(() => take(chunk));
      if (busy === undefined) return;
      stream.pause();
      const own = busy.then(() => {
        if (pending !== own) return;
        pending = null;
        stream.resume();
      });
      own.catch(reject);
      pending = own;
    });
    stream.on("end", () => {
      isEnded = true;
      if (pending === null) resolve();
      else pending.then(resolve, reject);
    });
    stream.on("error", reject);
    stream.on("close", () => {
      if (!isEnded) reject(new Error("the archive ended in an entry"));
    });
  });
}
