import { hash, randomBytes } from "node:crypto";
import { closeSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { temporaryFault } from "./temporary-fault.ts";

/** 16 bytes of the CID's sha256, then 16 bytes of content. */
export const RECORD_BYTES = 32;
/** The offset of a record's content. */
export const CONTENT_AT = 16;
/** The number of parts of a spill; a record's part is chosen by the hash of its CID. */
export const PARTS = 64;

const PART_BYTES = 2048 * RECORD_BYTES;

/** The key of a CID in a spill: 16 characters of latin1. The probability that two of 10^7 CIDs have the same key is below 10^-24. */
export function cidKey(cid: string): string {
  return hash("sha256", cid, "binary").slice(0, 16);
}

/**
 * Records of a fixed size on a disk, divided into parts by their key. It allows a join of lists of any size with
 * little memory: 4 MiB, and one part at a time. Its file is unlinked right after it is created, so nothing is
 * left behind, however the process ends.
 */
export class RecordSpill {
  count = 0;
  readonly #directory: string;
  readonly #file: number;
  readonly #buffers = Array.from({ length: PARTS }, () => Buffer.alloc(PART_BYTES));
  readonly #used = new Int32Array(PARTS);
  /** The positions of each part's chunks in the file. */
  readonly #chunks: number[][] = Array.from({ length: PARTS }, () => []);
  #end = 0;

  /** Throws an OperatorError (unavailable) if the directory is not writable. */
  constructor(directory: string) {
    this.#directory = directory;
    const path = join(directory, `.fula-node-compare-${randomBytes(8).toString("hex")}`);
    this.#file = this.#guarded(() => openSync(path, "wx+", 0o600));
    this.#guarded(() => unlinkSync(path));
  }

  /** Adds a record under a key from cidKey. `fill` writes the 16 bytes of content at the given offset. */
  add(key: string, fill: (buffer: Buffer, at: number) => void): void {
    const part = key.charCodeAt(15) % PARTS;
    const buffer = this.#buffers[part] as Buffer;
    const at = this.#used[part] as number;
    buffer.write(key, at, 16, "latin1");
    fill(buffer, at + CONTENT_AT);
    this.count += 1;
    this.#used[part] = at + RECORD_BYTES;
    if (at + RECORD_BYTES === PART_BYTES) this.#flush(part, buffer);
  }

  /** All records of one part. */
  part(part: number): Buffer {
    const chunks = this.#chunks[part] as number[];
    const used = this.#used[part] as number;
    const records = Buffer.allocUnsafe(chunks.length * PART_BYTES + used);
    chunks.forEach((position, index) => {
      this.#guarded(() => readSync(this.#file, records, index * PART_BYTES, PART_BYTES, position));
    });
    (this.#buffers[part] as Buffer).copy(records, chunks.length * PART_BYTES, 0, used);
    return records;
  }

  /** Frees the disk space. */
  close(): void {
    closeSync(this.#file);
  }

  #flush(part: number, buffer: Buffer): void {
    this.#guarded(() => {
      let written = 0;
      while (written < PART_BYTES)
        written += writeSync(this.#file, buffer, written, PART_BYTES - written, this.#end + written);
    });
    (this.#chunks[part] as number[]).push(this.#end);
    this.#end += PART_BYTES;
    this.#used[part] = 0;
  }

  #guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (cause) {
      throw temporaryFault(
        this.#directory,
        cause,
        "A comparison of two lists of pins needs 64 bytes per pin there.",
      );
    }
  }
}

/** Finds records of one part by their key. */
export class RecordIndex {
  readonly records: Buffer;
  /** A hash table with open addressing. An entry is the offset of a record plus 1; 0 is an empty slot. */
  readonly #table: Uint32Array;

  constructor(records: Buffer) {
    const count = records.length / RECORD_BYTES;
    const table = new Uint32Array(2 ** Math.ceil(Math.log2(Math.max(2, count * 2))));
    for (let at = 0; at < records.length; at += RECORD_BYTES) {
      let slot = records.readUInt32LE(at) & (table.length - 1);
      while (table[slot] !== 0) slot = (slot + 1) & (table.length - 1);
      table[slot] = at + 1;
    }
    this.records = records;
    this.#table = table;
  }

  /** The offset of the first record that has the same key as the record at offset `at` of `wanted`, or -1. */
  find(wanted: Buffer, at: number): number {
    const table = this.#table;
    let slot = wanted.readUInt32LE(at) & (table.length - 1);
    for (let offset = table[slot]; offset !== 0 && offset !== undefined; offset = table[slot]) {
      if (this.records.compare(wanted, at, at + 16, offset - 1, offset + 15) === 0) return offset - 1;
      slot = (slot + 1) & (table.length - 1);
    }
    return -1;
  }
}

/** CIDs on the disk, each with a number (0 to 2^32 - 1). Only the keys of the CIDs are stored: 32 bytes each. */
export interface NumberedCids {
  add(cid: string, number: number): void;
  /** Like add, for a CID of which only the key is known. */
  addKey(key: string, number: number): void;
  readonly count: number;
  /** Frees the disk space. */
  close(): void;
}

/** Opens an empty list of numbered CIDs in a directory that is on a disk. */
export function openNumberedCids(directory: string): NumberedCids {
  return new Numbered(directory);
}

/**
 * Calls `visit` for every CID of `left` with its number in `left`, its number in `right` (-1 if it is not there),
 * and a function that gives its key. A CID that is in `left` twice is visited once. Both lists must come from
 * openNumberedCids.
 */
export function joinNumberedCids(
  left: NumberedCids,
  right: NumberedCids,
  visit: (leftNumber: number, rightNumber: number, key: () => string) => void,
): void {
  if (!(left instanceof Numbered) || !(right instanceof Numbered))
    throw new Error("CIDs that openNumberedCids did not create");
  for (let part = 0; part < PARTS; part++) {
    const own = new RecordIndex(left.records.part(part));
    const other = new RecordIndex(right.records.part(part));
    let at = 0;
    const key = (): string => own.records.toString("latin1", at, at + CONTENT_AT);
    for (; at < own.records.length; at += RECORD_BYTES) {
      if (own.find(own.records, at) !== at) continue;
      const there = other.find(own.records, at);
      const number = there === -1 ? -1 : other.records.readUInt32LE(there + CONTENT_AT);
      visit(own.records.readUInt32LE(at + CONTENT_AT), number, key);
    }
  }
}

class Numbered implements NumberedCids {
  readonly records: RecordSpill;

  constructor(directory: string) {
    this.records = new RecordSpill(directory);
  }

  get count(): number {
    return this.records.count;
  }

  add(cid: string, number: number): void {
    this.addKey(cidKey(cid), number);
  }

  addKey(key: string, number: number): void {
    this.records.add(key, (buffer, at) => void buffer.writeUInt32LE(number, at));
  }

  close(): void {
    this.records.close();
  }
}
