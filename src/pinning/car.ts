import { decode } from "cborg";
import { CID } from "multiformats/cid";
import { createHash } from "node:crypto";
import { type ParsedCid, parseCid } from "./content-id.ts";

/** What is wrong with a CAR, for its sender. 413: it is larger than what is accepted. */
export class CarProblem extends Error {
  readonly status: 400 | 413;

  constructor(details: string, status: 400 | 413 = 400) {
    super(details);
    this.status = status;
  }
}

/** What a CAR may have. */
export interface CarLimits {
  readonly maxBytes: number;
  readonly maxBlockBytes: number;
  readonly maxBlocks: number;
}

/** A CAR that is being read. */
export interface Car {
  readonly root: ParsedCid;
  /**
   * Its blocks in the form of a CARv1, header first, each one checked before it is passed on. It throws a CarProblem for
   * the first block that is not right, and at the end if the CAR is not whole.
   */
  readonly frames: AsyncGenerator<Buffer>;
}

/** The hash of a block by multihash code, as lower-case hex. Null: this hash is not known here. */
export type HashBlock = (code: number, bytes: Uint8Array) => string | null;

const RAW = 0x55;
const DAG_PB = 0x70;
const DAG_CBOR = 0x71;
const CODECS: readonly number[] = [RAW, DAG_PB, DAG_CBOR];
const IDENTITY = 0x00;
/** A header with one root needs less than 200 bytes. */
const MAX_HEADER_BYTES = 4_096;
/** More than any CID whose digest has 128 bytes. */
const MAX_CID_BYTES = 160;
/** A frame longer than this has a wrong length, or is far too large. */
const MAX_VARINT_BYTES = 5;
/** CARv2 (ipld.io/specs/transport/car/carv2): 16 bytes of characteristics, then where the data begins and how long it is. */
const V2_HEADER_BYTES = 40;

/** Reads the header of a CAR, version 1 or 2. Throws a CarProblem if it is not one with exactly one root. */
export async function openCar(
  parts: AsyncIterable<Uint8Array>,
  limits: CarLimits,
  hashBlock: HashBlock,
): Promise<Car> {
  const reader = new PartReader(parts, limits.maxBytes);
  let header = await readHeader(reader);
  if (header.version === 2) {
    const place = await reader.take(V2_HEADER_BYTES);
    const offset = Number(place.readBigUInt64LE(16));
    const size = Number(place.readBigUInt64LE(24));
    if (offset < reader.position || size < 1) throw new CarProblem("The CAR's header (version 2) is wrong.");
    await reader.skip(offset - reader.position);
    reader.endAt(offset + size);
    header = await readHeader(reader);
  }
  if (header.version !== 1) throw new CarProblem("The file is not a CAR of version 1 or 2.");
  const root = rootOf(header.roots);
  async function* frames(): AsyncGenerator<Buffer> {
    yield header.frame;
    let count = 0;
    while (!(await reader.isAtEnd())) {
      const { length, bytes } = await readLength(reader, limits.maxBlockBytes + MAX_CID_BYTES, 413);
      if (++count > limits.maxBlocks)
        throw new CarProblem(`The CAR has more than ${limits.maxBlocks} blocks.`, 413);
      const frame = await reader.take(length);
      checkBlock(frame, limits.maxBlockBytes, hashBlock);
      yield Buffer.concat([bytes, frame]);
    }
    await reader.skipRest();
  }
  return { root, frames: frames() };
}

/** The sha2 family. Others come from the caller. */
export function hashSha2(code: number, bytes: Uint8Array): string | null {
  const name = code === 0x12 ? "sha256" : code === 0x13 ? "sha512" : null;
  return name === null ? null : createHash(name).update(bytes).digest("hex");
}

interface Header {
  readonly version: unknown;
  readonly roots: unknown;
  /** As it came, with its length. */
  readonly frame: Buffer;
}

async function readHeader(reader: PartReader): Promise<Header> {
  const { length, bytes } = await readLength(reader, MAX_HEADER_BYTES, 400);
  const header = await reader.take(length);
  const { version, roots } = decodeHeader(header);
  return { version, roots, frame: Buffer.concat([bytes, header]) };
}

function decodeHeader(bytes: Uint8Array): Readonly<Record<string, unknown>> {
  try {
    const header: unknown = decode(bytes, {
      allowIndefinite: false,
      rejectDuplicateMapKeys: true,
      tags: { 42: (link) => readLink(link()) },
    });
    return typeof header === "object" && header !== null ? (header as Record<string, unknown>) : {};
  } catch {
    throw new CarProblem("The file is not a CAR: its header is not DAG-CBOR.");
  }
}

function readLink(value: unknown): CID {
  if (!(value instanceof Uint8Array) || value[0] !== 0) throw new Error("not a link");
  return CID.decode(value.subarray(1));
}

function rootOf(roots: unknown): ParsedCid {
  const [root] = Array.isArray(roots) && roots.length === 1 ? (roots as unknown[]) : [];
  if (!(root instanceof CID)) throw new CarProblem("The CAR must have exactly one root.");
  const parsed = parseCid(root.toString());
  if (parsed === null || !CODECS.includes(root.code)) throw new CarProblem(`The root ${ONLY_CODECS}`);
  return parsed;
}

const ONLY_CODECS = "must have the codec raw, dag-pb or dag-cbor.";

function checkBlock(frame: Buffer, maxBlockBytes: number, hashBlock: HashBlock): void {
  const [cid, bytes] = splitFrame(frame);
  if (bytes.length > maxBlockBytes) throw tooLarge(maxBlockBytes);
  if (!CODECS.includes(cid.code)) throw new CarProblem(`The block ${cid.toString()} ${ONLY_CODECS}`);
  const { code, digest } = cid.multihash;
  const hex = code === IDENTITY ? Buffer.from(bytes).toString("hex") : hashBlock(code, bytes);
  if (hex === null)
    throw new CarProblem(`The hash of the block ${cid.toString()} must be sha2-256, sha2-512 or blake3.`);
  if (hex !== Buffer.from(digest).toString("hex"))
    throw new CarProblem(`The bytes of the block ${cid.toString()} do not match its CID.`);
}

function splitFrame(frame: Buffer): [CID, Uint8Array] {
  try {
    return CID.decodeFirst(frame);
  } catch {
    throw new CarProblem("A block of the CAR has no valid CID.");
  }
}

function tooLarge(maxBytes: number): CarProblem {
  return new CarProblem(`A block of the CAR has more than ${maxBytes} bytes.`, 413);
}

/** Reads a length (unsigned LEB128, without needless bytes). The status is for one that is too large. */
async function readLength(
  reader: PartReader,
  most: number,
  status: 400 | 413,
): Promise<{ readonly length: number; readonly bytes: Buffer }> {
  const bytes: number[] = [];
  let length = 0;
  for (;;) {
    const [byte = 0] = await reader.take(1);
    bytes.push(byte);
    length += (byte & 0x7f) * 2 ** (7 * (bytes.length - 1));
    const isLast = byte < 0x80;
    if (isLast && (length === 0 || (byte === 0 && bytes.length > 1))) throw WRONG_LENGTH();
    if (length > most) {
      if (status === 413) throw tooLarge(most - MAX_CID_BYTES);
      throw new CarProblem("The file is not a CAR, or its header is far too long.");
    }
    if (isLast) return { length, bytes: Buffer.from(bytes) };
    if (bytes.length >= MAX_VARINT_BYTES) throw WRONG_LENGTH();
  }
}

const WRONG_LENGTH = (): CarProblem => new CarProblem("The CAR has a length that is not valid.");

/** Reads parts of any size as pieces of a wanted size. It keeps no more than one piece and one part. */
class PartReader {
  readonly #parts: AsyncIterator<Uint8Array>;
  readonly #maxBytes: number;
  #kept: Buffer[] = [];
  #keptBytes = 0;
  #received = 0;
  #end = Number.POSITIVE_INFINITY;
  position = 0;

  constructor(parts: AsyncIterable<Uint8Array>, maxBytes: number) {
    this.#parts = parts[Symbol.asyncIterator]();
    this.#maxBytes = maxBytes;
  }

  /** What follows is no longer read as pieces. */
  endAt(position: number): void {
    this.#end = position;
  }

  /** True if all was read. A CARv2 that is cut off before the end of its data is not at its end. */
  async isAtEnd(): Promise<boolean> {
    if (this.position >= this.#end) return true;
    if (this.#keptBytes > 0 || (await this.#more())) return false;
    if (this.#end !== Number.POSITIVE_INFINITY) throw cutOff();
    return true;
  }

  async take(size: number): Promise<Buffer> {
    if (this.position + size > this.#end) throw cutOff();
    while (this.#keptBytes < size) if (!(await this.#more())) throw cutOff();
    const all = this.#kept.length === 1 ? (this.#kept[0] as Buffer) : Buffer.concat(this.#kept);
    this.#keptBytes -= size;
    this.#kept = this.#keptBytes === 0 ? [] : [all.subarray(size)];
    this.position += size;
    return all.subarray(0, size);
  }

  async skip(size: number): Promise<void> {
    let left = size;
    while (left > 0) {
      if (this.#keptBytes === 0 && !(await this.#more())) throw cutOff();
      left -= (await this.take(Math.min(left, this.#keptBytes))).length;
    }
  }

  /** Reads the index of a CARv2, which nobody needs. */
  async skipRest(): Promise<void> {
    do this.#kept = [];
    while (await this.#more());
  }

  async #more(): Promise<boolean> {
    const { done, value } = await this.#parts.next();
    if (done === true) return false;
    this.#received += value.length;
    if (this.#received > this.#maxBytes)
      throw new CarProblem(`The CAR has more than ${this.#maxBytes} bytes.`, 413);
    const part = Buffer.from(value.buffer, value.byteOffset, value.length);
    if (part.length > 0) this.#kept.push(part);
    this.#keptBytes += part.length;
    return true;
  }
}

function cutOff(): CarProblem {
  return new CarProblem("The CAR is cut off: a part of it is missing.");
}
