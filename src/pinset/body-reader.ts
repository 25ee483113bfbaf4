import { createHash, type Hash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { basename } from "node:path";
import { pipeline } from "node:stream/promises";
import zlib from "node:zlib";
import { messageOf, OperatorError } from "../errors.ts";
import { LineBlocks, LineTooLong, splitLines } from "../machine/line-scanner.ts";

/** What one complete reading of a body found. */
export interface BodyReading {
  /** Of the file as stored, as hex. */
  readonly sha256: string;
  readonly sizeBytes: number;
  /** Size of the unpacked lines. */
  readonly plainBytes: number;
  readonly count: number;
}

/** What was signed about a body. */
export interface SignedBody {
  /** Of the file as stored. */
  readonly sizeBytes: number;
  readonly sha256: string;
  /** Size of the unpacked lines. */
  readonly plainBytes: number;
}

/** The format of a body. `gzip`: compressed, one pin per line. `json`: upstream's file, in any JSON layout. */
export type BodyEncoding = "gzip" | "json";

/** Receives blocks of whole lines. If it returns a promise, the reader waits for it. */
export type TakeBodyLines = (lines: Buffer) => void | Promise<void>;

const READ_BYTES = 1024 * 1024;

/**
 * Reads a body in constant memory and passes its pins on in blocks of whole lines, one pin per line. With `signed`,
 * the size and the sha256 of the stored file are checked first: nothing else is ever unpacked, and never more than was
 * signed. Throws an OperatorError: `integrity` if the body is not the signed one, cannot be unpacked or is not JSON,
 * `unavailable` if it cannot be read.
 */
export async function readBody(
  path: string,
  encoding: BodyEncoding,
  options: { readonly takeLines?: TakeBodyLines; readonly signed?: SignedBody } = {},
): Promise<BodyReading> {
  const { signed } = options;
  const file = await openBody(path);
  const sha256 = createHash("sha256");
  const lines = new LineConsumer(path, signed?.plainBytes ?? Infinity, options.takeLines);
  let sizeBytes = 0;
  const measure = async function* (chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of chunks) {
      sha256.update(chunk);
      sizeBytes += chunk.length;
      yield chunk;
    }
  };
  try {
    if (signed !== undefined) await checkSigned(path, file, signed);
    const source = file.createReadStream({ start: 0, highWaterMark: READ_BYTES, autoClose: false });
    if (encoding === "gzip") {
      const gunzip = zlib.createGunzip({ chunkSize: READ_BYTES });
      await pipeline(source, measure, gunzip, (chunks: AsyncIterable<Buffer>) => lines.takeAll(chunks));
    } else {
      const split = (chunks: AsyncIterable<Buffer>): AsyncIterable<Buffer> => splitElements(path, chunks);
      await pipeline(source, measure, split, (chunks: AsyncIterable<Buffer>) => lines.takeAll(chunks));
    }
  } catch (cause) {
    throw cause instanceof OperatorError ? cause : asOperatorError(path, cause);
  } finally {
    await file.close();
  }
  const reading = { sha256: sha256.digest("hex"), sizeBytes, ...lines.reading() };
  if (signed !== undefined && reading.sha256 !== signed.sha256) throw changed(path);
  return reading;
}

/**
 * Copies the stored bytes of a body to a new file that nobody else can open, and checks while it copies that they are
 * the ones that were verified. A failure to write is thrown as it is.
 */
export async function copyBody(
  path: string,
  verified: Pick<SignedBody, "sizeBytes" | "sha256">,
  to: FileHandle,
): Promise<void> {
  const file = await openBody(path);
  const sha256 = createHash("sha256");
  let writeFault: unknown = null;
  const write = (chunk: Buffer): Promise<void> =>
    to.writeFile(chunk).catch((cause: unknown) => {
      writeFault = cause;
      throw cause;
    });
  try {
    await hashStored(file, sha256, verified.sizeBytes, write);
  } catch (cause) {
    throw writeFault ?? asOperatorError(path, cause);
  } finally {
    await file.close();
  }
  if (sha256.digest("hex") !== verified.sha256) throw changed(path);
}

/** A pipe or a device in the place of the file would block for ever: it is refused. */
async function openBody(path: string): Promise<FileHandle> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((cause: unknown) => {
    throw unreadable(path, cause);
  });
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw damaged(path, "it is not a file", undefined);
}

async function checkSigned(path: string, file: FileHandle, signed: SignedBody): Promise<void> {
  const name = basename(path);
  const { size } = await file.stat();
  if (size !== signed.sizeBytes)
    throw notSigned(
      `${name} has ${size} bytes, but ${signed.sizeBytes} bytes were signed: the file was truncated or extended.`,
    );
  const sha256 = createHash("sha256");
  await hashStored(file, sha256, signed.sizeBytes);
  if (sha256.digest("hex") !== signed.sha256)
    throw notSigned(`${name} is not the file that was signed: its sha256 differs.`);
}

/** Hashes the file from its start, and one byte more than expected at most, so that a file that grows has another hash. */
async function hashStored(
  file: FileHandle,
  sha256: Hash,
  sizeBytes: number,
  take?: (chunk: Buffer) => Promise<void>,
): Promise<void> {
  const stream = file.createReadStream({
    start: 0,
    end: sizeBytes,
    highWaterMark: READ_BYTES,
    autoClose: false,
  });
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    sha256.update(chunk);
    await take?.(chunk);
  }
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

/** Counts lines, and passes them on in blocks of whole lines. Ends when there is more than was signed. */
class LineConsumer {
  readonly #path: string;
  readonly #maxBytes: number;
  readonly #takeLines: TakeBodyLines | undefined;
  readonly #blocks = new LineBlocks();
  #count = 0;
  #plainBytes = 0;

  constructor(path: string, maxBytes: number, takeLines: TakeBodyLines | undefined) {
    this.#path = path;
    this.#maxBytes = maxBytes;
    this.#takeLines = takeLines;
  }

  async takeAll(chunks: AsyncIterable<Buffer>): Promise<void> {
    for await (const chunk of chunks) {
      this.#plainBytes += chunk.length;
      if (this.#plainBytes > this.#maxBytes)
        throw notSigned(
          `${basename(this.#path)} unpacks to more than the ${this.#maxBytes} bytes that its manifest says.`,
        );
      const block = this.#blocks.add(chunk);
      if (block !== null) await this.#take(block);
    }
    const rest = this.#blocks.rest();
    if (rest.length > 0) await this.#take(rest);
  }

  reading(): Pick<BodyReading, "count" | "plainBytes"> {
    return { count: this.#count, plainBytes: this.#plainBytes };
  }

  async #take(lines: Buffer): Promise<void> {
    for (const _ of splitLines(lines)) this.#count += 1;
    const pending = this.#takeLines?.(lines);
    if (pending !== undefined) await pending;
  }
}

function asOperatorError(path: string, cause: unknown): unknown {
  const code = (cause as NodeJS.ErrnoException).code ?? "";
  if (cause instanceof LineTooLong) return damaged(path, cause.message, cause);
  if (code.startsWith("Z_")) return damaged(path, `it cannot be unpacked (${messageOf(cause)})`, cause);
  if (/^E[A-Z]+$/.test(code)) return unreadable(path, cause);
  return cause;
}

function changed(path: string): OperatorError {
  return new OperatorError({
    exit: "integrity",
    what: `${basename(path)} was changed after it was verified.`,
    remedy: "Find out who changed it, then start again with a valid copy.",
  });
}

function notSigned(what: string): OperatorError {
  return new OperatorError({ exit: "integrity", what, remedy: DAMAGED_REMEDY });
}

/** What to do with a snapshot that is not what was signed. */
export const DAMAGED_REMEDY =
  "Use another snapshot. `fula-node snapshot list` shows which ones are valid. Keep this one: it may be evidence.";

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
