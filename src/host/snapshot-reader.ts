import { createHash, hash } from "node:crypto";
import { open } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import zlib from "node:zlib";
import { OperatorError, messageOf } from "../errors.ts";
import { JsonElements } from "../model/json-elements.ts";
import { PinsetDigest } from "../model/snapshot-digest.ts";

/** What reading a body whole has shown. */
export interface BodyReading {
  /** Of the file as it lies there, as hex. */
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Of its lines. */
  readonly plainBytes: number;
  readonly count: number;
  /** PinsetDigest of the lines as hex; null where it was not asked for. */
  readonly digest: string | null;
}

/** How a body is written: `gzip`, one pin a line; `json`, upstream's, in whatever layout. */
export type BodyEncoding = "gzip" | "json";

const NEWLINE = 0x0a;
const READ_BYTES = 1024 * 1024;

/**
 * Reads a body in constant memory and hands its pins over as blocks of whole lines, one pin a line; a
 * promise makes it wait. Throws an OperatorError: `integrity` where it can't be unpacked or is no JSON,
 * `unavailable` where it can't be read.
 */
export async function readBody(
  path: string,
  encoding: BodyEncoding,
  options: {
    readonly digest?: boolean;
    readonly takeLines?: (lines: Buffer) => void | Promise<void>;
  } = {},
): Promise<BodyReading> {
  const sha256 = createHash("sha256");
  let sizeBytes = 0;
  const lines = new LineTaker(options.digest === true ? new PinsetDigest() : null, options.takeLines);
  const file = await open(path, "r").catch((cause: unknown) => {
    throw unreadable(path, cause);
  });
  const measure = async function* (chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of chunks) {
      sha256.update(chunk);
      sizeBytes += chunk.length;
      yield chunk;
    }
  };
  const source = file.createReadStream({ highWaterMark: READ_BYTES });
  try {
    if (encoding === "gzip") {
      const gunzip = zlib.createGunzip({ chunkSize: READ_BYTES });
      await pipeline(source, measure, gunzip, (chunks: AsyncIterable<Buffer>) => lines.takeAll(chunks));
    } else {
      const split = (chunks: AsyncIterable<Buffer>): AsyncIterable<Buffer> => splitElements(path, chunks);
      await pipeline(source, measure, split, (chunks: AsyncIterable<Buffer>) => lines.takeAll(chunks));
    }
  } catch (cause) {
    throw cause instanceof OperatorError ? cause : asOperatorError(path, cause);
  }
  return { sha256: sha256.digest("hex"), sizeBytes, ...lines.reading() };
}

async function* splitElements(path: string, chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const elements = new JsonElements();
  const refuse = (cause: unknown): never => {
    throw damaged(path, messageOf(cause), cause);
  };
  for await (const chunk of chunks) {
    let part: Uint8Array = chunk;
    try {
      part = elements.add(chunk);
    } catch (cause) {
      refuse(cause);
    }
    yield Buffer.from(part.buffer, part.byteOffset, part.length);
  }
  try {
    elements.end();
  } catch (cause) {
    refuse(cause);
  }
}

/** Counts lines, digests them where asked, and hands them on in whole ones. */
class LineTaker {
  readonly #digest: PinsetDigest | null;
  readonly #takeLines: ((lines: Buffer) => void | Promise<void>) | undefined;
  #carried: Buffer = Buffer.alloc(0);
  #count = 0;
  #plainBytes = 0;

  constructor(digest: PinsetDigest | null, takeLines: ((lines: Buffer) => void | Promise<void>) | undefined) {
    this.#digest = digest;
    this.#takeLines = takeLines;
  }

  async takeAll(chunks: AsyncIterable<Buffer>): Promise<void> {
    for await (const chunk of chunks) {
      this.#plainBytes += chunk.length;
      const end = chunk.lastIndexOf(NEWLINE) + 1;
      if (end === 0) {
        this.#carried = Buffer.concat([this.#carried, chunk]);
        continue;
      }
      const whole = chunk.subarray(0, end);
      await this.#take(this.#carried.length === 0 ? whole : Buffer.concat([this.#carried, whole]));
      this.#carried = Buffer.from(chunk.subarray(end));
    }
    if (this.#carried.length > 0) await this.#take(this.#carried);
  }

  reading(): Pick<BodyReading, "count" | "plainBytes" | "digest"> {
    return { count: this.#count, plainBytes: this.#plainBytes, digest: this.#digest?.hex() ?? null };
  }

  async #take(lines: Buffer): Promise<void> {
    let start = 0;
    while (start < lines.length) {
      const newline = lines.indexOf(NEWLINE, start);
      const end = newline === -1 ? lines.length : newline;
      if (end > start) {
        this.#count += 1;
        this.#digest?.add(hash("sha256", lines.subarray(start, end), "binary"));
      }
      start = end + 1;
    }
    const pending = this.#takeLines?.(lines);
    if (pending !== undefined) await pending;
  }
}

function asOperatorError(path: string, cause: unknown): unknown {
  const code = (cause as NodeJS.ErrnoException).code ?? "";
  if (code.startsWith("Z_")) return damaged(path, `it can't be unpacked (${messageOf(cause)})`, cause);
  if (/^E[A-Z]+$/.test(code)) return unreadable(path, cause);
  return cause;
}

function damaged(path: string, why: string, cause: unknown): OperatorError {
  return new OperatorError({
    exit: "integrity",
    what: `${path} is damaged: ${why}.`,
    remedy: "Use another snapshot: `fula-node snapshot list` says which are whole.",
    cause,
  });
}

function unreadable(path: string, cause: unknown): OperatorError {
  const absent = (cause as NodeJS.ErrnoException).code === "ENOENT";
  return new OperatorError({
    exit: absent ? "integrity" : "unavailable",
    what: absent ? `${path} is missing.` : `${path} can't be read: ${messageOf(cause)}.`,
    remedy: "Look at the file and its file system, or use another snapshot.",
    cause,
  });
}
