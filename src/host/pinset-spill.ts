import { hash, randomBytes } from "node:crypto";
import { closeSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { OperatorError, messageOf } from "../errors.ts";
import { linesOf } from "../model/pin.ts";
import { optionsKey, readWholePin } from "../model/pin-options.ts";
import { MARKS, PinsetMarks } from "../model/pinset-marks.ts";

/**
 * One record a pin: 16 bytes of the CID's sha256, 8 of its options', its place in the listing, and
 * whether it is direct.
 */
const RECORD_BYTES = 32;
const PARTS = 64;
const PART_RECORDS = 2048;
const PART_BYTES = PART_RECORDS * RECORD_BYTES;

/** A pinset laid down on the disk for comparing: 32 bytes a pin, sorted into parts by the CID's hash. */
export interface PinsetSpill {
  /** Takes whole lines, one pin a line. Throws an OperatorError where a line is no pin or the disk is full. */
  add(lines: Buffer): void;
  /** Pins so far; the next one's place. */
  readonly count: number;
  /** Gives the disk's room back. */
  close(): void;
}

/** How two pinsets stand to each other, pin by pin. */
export interface PinsetMatch {
  readonly left: PinsetMarks;
  readonly right: PinsetMarks;
}

/**
 * Opens a spill in a directory on a disk. Its file has no name from the start, so nothing is left behind
 * however the process ends. In memory it holds 4 MiB.
 */
export function openSpill(directory: string): PinsetSpill {
  return new Spill(directory);
}

/**
 * Compares two spills pin by pin. At once, one part in 64 of both is in memory: 5 MB at 5,000,000 pins;
 * besides, the marks, two bits a pin. Both must be of this module.
 */
export function matchSpills(left: PinsetSpill, right: PinsetSpill): PinsetMatch {
  if (!(left instanceof Spill) || !(right instanceof Spill)) throw new Error("a spill of another make");
  const match = { left: new PinsetMarks(left.count), right: new PinsetMarks(right.count) };
  for (let part = 0; part < PARTS; part++) matchPart(left.part(part), right.part(part), match);
  return match;
}

class Spill implements PinsetSpill {
  count = 0;
  readonly #directory: string;
  readonly #file: number;
  readonly #buffers = Array.from({ length: PARTS }, () => Buffer.alloc(PART_BYTES));
  readonly #used = new Int32Array(PARTS);
  /** Where in the file each part's chunks are. */
  readonly #chunks: number[][] = Array.from({ length: PARTS }, () => []);
  #end = 0;

  constructor(directory: string) {
    this.#directory = directory;
    const path = join(directory, `.fula-node-compare-${randomBytes(8).toString("hex")}`);
    this.#file = this.#guarded(() => openSync(path, "wx+", 0o600));
    this.#guarded(() => unlinkSync(path));
  }

  add(lines: Buffer): void {
    for (const line of linesOf(lines, "utf8")) this.#addPin(line);
  }

  close(): void {
    closeSync(this.#file);
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

  #addPin(line: string): void {
    const pin = readWholePin(parse(line));
    if (pin === null) throw notAPin(line, undefined);
    const cidHash = hash("sha256", pin.cid, "binary");
    const part = cidHash.charCodeAt(31) % PARTS;
    const buffer = this.#buffers[part] as Buffer;
    let at = this.#used[part] as number;
    buffer.write(cidHash, at, 16, "latin1");
    buffer.write(hash("sha256", optionsKey(pin.options), "binary"), at + 16, 8, "latin1");
    buffer.writeUInt32LE(this.count, at + 24);
    buffer.writeUInt32LE(pin.options.mode === "direct" ? 1 : 0, at + 28);
    this.count += 1;
    at += RECORD_BYTES;
    if (at === PART_BYTES) {
      this.#flush(part, buffer);
      at = 0;
    }
    this.#used[part] = at;
  }

  #flush(part: number, buffer: Buffer): void {
    this.#guarded(() => {
      let written = 0;
      while (written < PART_BYTES)
        written += writeSync(this.#file, buffer, written, PART_BYTES - written, this.#end + written);
    });
    (this.#chunks[part] as number[]).push(this.#end);
    this.#end += PART_BYTES;
  }

  #guarded<T>(work: () => T): T {
    try {
      return work();
    } catch (cause) {
      const full = (cause as NodeJS.ErrnoException).code === "ENOSPC";
      throw new OperatorError({
        exit: "unavailable",
        what: full
          ? `The disk that holds ${this.#directory} is full.`
          : `It was not possible to work in ${this.#directory}: ${messageOf(cause)}.`,
        why: "Comparing needs 32 bytes a pin there, for each of both sides.",
        remedy: "Make room, or name another directory with TMPDIR, then run this again.",
        cause,
      });
    }
  }
}

function matchPart(left: Buffer, right: Buffer, match: PinsetMatch): void {
  const table = tableOf(right);
  const met = new Uint8Array(right.length / RECORD_BYTES);
  for (let at = 0; at < left.length; at += RECORD_BYTES) {
    const place = left.readUInt32LE(at + 24);
    const there = find(table, right, left, at);
    if (there === -1) {
      match.left.set(place, MARKS.missing);
      continue;
    }
    met[there / RECORD_BYTES] = 1;
    if (left.compare(right, there + 16, there + 24, at + 16, at + 24) === 0) continue;
    const [here, other] = [left.readUInt32LE(at + 28), right.readUInt32LE(there + 28)];
    match.left.set(place, here === 1 && other === 0 ? MARKS.blocked : MARKS.differs);
    match.right.set(
      right.readUInt32LE(there + 24),
      other === 1 && here === 0 ? MARKS.blocked : MARKS.differs,
    );
  }
  for (let index = 0; index < met.length; index++) {
    if (met[index] === 1) continue;
    const at = index * RECORD_BYTES;
    // A CID that is listed twice was met where it stands first.
    if (met[find(table, right, right, at) / RECORD_BYTES] === 1) continue;
    match.right.set(right.readUInt32LE(at + 24), MARKS.missing);
  }
}

/** An open-addressing table from a CID's hash to the offset of its record, plus one; 0 is empty. */
function tableOf(records: Buffer): Uint32Array {
  const count = records.length / RECORD_BYTES;
  const table = new Uint32Array(2 ** Math.ceil(Math.log2(Math.max(2, count * 2))));
  for (let at = 0; at < records.length; at += RECORD_BYTES) {
    let slot = records.readUInt32LE(at) & (table.length - 1);
    while (table[slot] !== 0) slot = (slot + 1) & (table.length - 1);
    table[slot] = at + 1;
  }
  return table;
}

function find(table: Uint32Array, records: Buffer, wanted: Buffer, at: number): number {
  let slot = wanted.readUInt32LE(at) & (table.length - 1);
  for (let offset = table[slot]; offset !== 0 && offset !== undefined; offset = table[slot]) {
    if (records.compare(wanted, at, at + 16, offset - 1, offset + 15) === 0) return offset - 1;
    slot = (slot + 1) & (table.length - 1);
  }
  return -1;
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch (cause) {
    throw notAPin(line, cause);
  }
}

function notAPin(line: string, cause: unknown): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `A line of a pinset can't be read: ${line.length > 80 ? `${line.slice(0, 80)}…` : line}`,
    why: "A list with one unreadable line is not complete.",
    cause,
  });
}
