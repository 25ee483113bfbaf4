import { createHash, hash } from "node:crypto";
import { open } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import zlib from "node:zlib";
import { messageOf, OperatorError } from "../errors.ts";
import { LineBlocks, splitLines } from "../machine/line-scanner.ts";
import { PinsetDigest } from "./snapshot/manifest.ts";

/** What one complete reading of a body found. */
export interface BodyReading {
  /** Of the file as stored, as hex. */
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Size of the unpacked lines. */
  readonly plainBytes: number;
  readonly count: number;
  /** PinsetDigest of the lines as hex; null if it was not requested. */
  readonly digest: string | null;
}

/** The format of a body. `gzip`: compressed, one pin per line. `json`: upstream's file, in any JSON layout. */
export type BodyEncoding = "gzip" | "json";

const READ_BYTES = 1024 * 1024;

/**
 * Reads a body in constant memory and passes its pins on in blocks of whole lines, one pin per line. If
 * `takeLines` returns a promise, the reader waits for it. Throws an OperatorError: `integrity` if the body
 * cannot be unpacked or is not JSON, `unavailable` if it cannot be read.
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
  const lines = new LineConsumer(options.digest === true ? new PinsetDigest() : null, options.takeLines);
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

/** Counts lines, computes their digest if requested, and passes them on in blocks of whole lines. */
class LineConsumer {
  readonly #digest: PinsetDigest | null;
  readonly #takeLines: ((lines: Buffer) => void | Promise<void>) | undefined;
  readonly #blocks = new LineBlocks();
  #count = 0;
  #plainBytes = 0;

  constructor(digest: PinsetDigest | null, takeLines: ((lines: Buffer) => void | Promise<void>) | undefined) {
    this.#digest = digest;
    this.#takeLines = takeLines;
  }

  async takeAll(chunks: AsyncIterable<Buffer>): Promise<void> {
    for await (const chunk of chunks) {
      this.#plainBytes += chunk.length;
      const block = this.#blocks.add(chunk);
      if (block !== null) await this.#take(block);
    }
    const rest = this.#blocks.rest();
    if (rest.length > 0) await this.#take(rest);
  }

  reading(): Pick<BodyReading, "count" | "plainBytes" | "digest"> {
    return { count: this.#count, plainBytes: this.#plainBytes, digest: this.#digest?.hex() ?? null };
  }

  async #take(lines: Buffer): Promise<void> {
    for (const line of splitLines(lines)) {
      this.#count += 1;
      this.#digest?.add(hash("sha256", line, "binary"));
    }
    const pending = this.#takeLines?.(lines);
    if (pending !== undefined) await pending;
  }
}

function asOperatorError(path: string, cause: unknown): unknown {
  const code = (cause as NodeJS.ErrnoException).code ?? "";
  if (code.startsWith("Z_")) return damaged(path, `it cannot be unpacked (${messageOf(cause)})`, cause);
  if (/^E[A-Z]+$/.test(code)) return unreadable(path, cause);
  return cause;
}

function damaged(path: string, why: string, cause: unknown): OperatorError {
  return new OperatorError({
    exit: "integrity",
    what: `${path} is damaged: ${why}.`,
    remedy: "Use another snapshot. `fula-node snapshot list` shows which ones are valid.",
    cause,
  });
}

function unreadable(path: string, cause: unknown): OperatorError {
  const absent = (cause as NodeJS.ErrnoException).code === "ENOENT";
  return new OperatorError({
    exit: absent ? "integrity" : "unavailable",
    what: absent ? `${path} is missing.` : `${path} cannot be read: ${messageOf(cause)}.`,
    remedy: "Check the file and its file system, or use another snapshot.",
    cause,
  });
}

const LINE_END = 0x0a;
const SPACE = 0x20;
const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const OPEN = 0x7b;
const CLOSE = 0x7d;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;

/**
 * Converts a stream of JSON objects to one object per line, without holding more than one object. The input is
 * either objects one after the other in any layout (as `ipfs-cluster-ctl --enc=json` prints them), or one
 * array of objects. Only line ends between tokens are changed.
 */
export class JsonElements {
  #depth = 0;
  #inString = false;
  #escaped = false;
  #array: "not seen" | "open" | "closed" = "not seen";
  #elements = 0;

  /** Takes the next bytes. Returns the bytes of complete and partial elements, with a newline after each complete one. Throws an Error for anything that is not a JSON object. */
  add(bytes: Uint8Array): Uint8Array {
    const out = new Uint8Array(bytes.length + countCloses(bytes));
    let used = 0;
    for (const byte of bytes) {
      if (this.#depth === 0) {
        if (!this.#isStartOfElement(byte)) continue;
        this.#depth = 1;
        out[used++] = byte;
        continue;
      }
      out[used++] = byte === LINE_END || byte === 0x0d ? SPACE : byte;
      if (this.#isEndOfElement(byte)) out[used++] = LINE_END;
    }
    return out.subarray(0, used);
  }

  /** Call it at the end of the input. Throws an Error if an object or the array is not closed. */
  end(): void {
    if (this.#depth > 0 || this.#array === "open") throw new Error("it ends inside an object or an array");
  }

  /** True if an element begins with this byte. */
  #isStartOfElement(byte: number): boolean {
    if (byte <= SPACE) return false;
    if (this.#array === "closed") throw new Error("there is more data after the end of the array");
    if (byte === OPEN) return true;
    if (byte === OPEN_ARRAY && this.#array === "not seen" && this.#elements === 0) {
      this.#array = "open";
      return false;
    }
    if (byte === CLOSE_ARRAY && this.#array === "open") {
      this.#array = "closed";
      return false;
    }
    if (byte === COMMA && this.#array === "open" && this.#elements > 0) return false;
    throw new Error("it contains something that is not a JSON object");
  }

  /** True if the element ends with this byte. */
  #isEndOfElement(byte: number): boolean {
    if (this.#inString) {
      if (this.#escaped) this.#escaped = false;
      else if (byte === BACKSLASH) this.#escaped = true;
      else if (byte === QUOTE) this.#inString = false;
      return false;
    }
    if (byte === QUOTE) this.#inString = true;
    else if (byte === OPEN || byte === OPEN_ARRAY) this.#depth += 1;
    else if (byte === CLOSE || byte === CLOSE_ARRAY) this.#depth -= 1;
    if (this.#depth > 0) return false;
    this.#elements += 1;
    return true;
  }
}

function countCloses(bytes: Uint8Array): number {
  let count = 0;
  for (const byte of bytes) if (byte === CLOSE || byte === CLOSE_ARRAY) count += 1;
  return count;
}
