import { hash, randomBytes } from "node:crypto";
import { open, unlink } from "node:fs/promises";
import { join } from "node:path";
import { linesOf, optionsKey, readWholePin } from "../cluster/pin.ts";
import { messageOf, OperatorError } from "../errors.ts";
import { readBody } from "./body-reader.ts";
import { BodyWriter } from "./body-writer.ts";
import { MARKS, PinsetMarks } from "./marks.ts";
import {
  cidKey,
  joinNumberedCids,
  type NumberedCids,
  openNumberedCids,
  OWN_BYTES_AT,
  PARTS,
  RECORD_BYTES,
  RecordIndex,
  RecordSpill,
} from "./spill.ts";

/** A listing kept on the disk, so that it can be read as often as a snapshot. */
interface PinsetSpool {
  /** Takes whole lines of pins. A promise means: wait. */
  write(lines: Buffer): void | Promise<void>;
  finish(): Promise<void>;
  read(takeLines: (lines: Buffer) => void | Promise<void>): Promise<void>;
  /** Gives the disk's room back. */
  close(): Promise<void>;
}

/** Room on a disk for work on pinsets of any size; its files have no names, so nothing is ever left behind. */
export interface PinsetWorkspace {
  openSpill(): PinsetSpill;
  matchSpills(left: PinsetSpill, right: PinsetSpill): PinsetMatch;
  openSpool(): Promise<PinsetSpool>;
  openNumberedCids(): NumberedCids;
  readonly joinNumberedCids: typeof joinNumberedCids;
  /** What a CID is known by in NumberedCids. */
  readonly cidKey: typeof cidKey;
}

/** Opens a workspace in a directory on a disk, such as /var/tmp. */
export function openWorkspace(directory: string): PinsetWorkspace {
  return {
    openSpill: () => openSpill(directory),
    matchSpills,
    openNumberedCids: () => openNumberedCids(directory),
    joinNumberedCids,
    cidKey,
    openSpool: async () => {
      const path = join(directory, `.fula-node-spool-${randomBytes(8).toString("hex")}`);
      const guarded = guard(directory);
      const writer = await guarded(BodyWriter.create(path));
      const reader = await guarded(open(path, "r"));
      await guarded(unlink(path));
      return {
        write: (lines) => {
          const pending = writer.write(lines);
          return pending === undefined ? undefined : guarded(pending);
        },
        finish: async () => void (await guarded(writer.finish())),
        read: async (takeLines) => void (await readBody(`/proc/self/fd/${reader.fd}`, "gzip", { takeLines })),
        close: async () => {
          await writer.abandon();
          await reader.close();
        },
      };
    },
  };
}

function guard(directory: string): <T>(work: Promise<T>) => Promise<T> {
  return (work) =>
    work.catch((cause: unknown) => {
      if (cause instanceof OperatorError) throw cause;
      const full = (cause as NodeJS.ErrnoException).code === "ENOSPC";
      throw new OperatorError({
        exit: "unavailable",
        what: full
          ? `The disk that holds ${directory} is full.`
          : `It was not possible to work in ${directory}: ${messageOf(cause)}.`,
        remedy: "Make room, or name another directory with TMPDIR, then run this again.",
        cause,
      });
    });
}

/** A pinset laid down on the disk for comparing, 32 bytes a pin. */
export interface PinsetSpill {
  /** Takes whole lines, one pin a line. Throws an OperatorError where a line is no pin or the disk is full. */
  add(lines: Buffer): void;
  /** Gives the disk's room back. */
  close(): void;
}

/** How two pinsets stand to each other, pin by pin, in the order of their lines. */
export interface PinsetMatch {
  readonly left: PinsetMarks;
  readonly right: PinsetMarks;
}

/** Opens a spill in a directory on a disk. */
export function openSpill(directory: string): PinsetSpill {
  return new Spill(directory);
}

/**
 * Compares two spills pin by pin. At once, one part in 64 of both is in memory: 5 MB at 5,000,000 pins;
 * besides, the marks, two bits a pin. Both must be of openSpill.
 */
export function matchSpills(left: PinsetSpill, right: PinsetSpill): PinsetMatch {
  if (!(left instanceof Spill) || !(right instanceof Spill)) throw new Error("a spill of another make");
  const match = {
    left: new PinsetMarks(left.records.count),
    right: new PinsetMarks(right.records.count),
  };
  for (let part = 0; part < PARTS; part++)
    matchPart(left.records.part(part), right.records.part(part), match);
  return match;
}

/** Own bytes of a record: 8 of the options' sha256, the pin's place, and 1 where it is direct. */
const OPTIONS_AT = OWN_BYTES_AT;
const PLACE_AT = OWN_BYTES_AT + 8;
const DIRECT_AT = OWN_BYTES_AT + 12;

class Spill implements PinsetSpill {
  readonly records: RecordSpill;

  constructor(directory: string) {
    this.records = new RecordSpill(directory);
  }

  add(lines: Buffer): void {
    for (const line of linesOf(lines, "utf8")) this.#addPin(line);
  }

  close(): void {
    this.records.close();
  }

  #addPin(line: string): void {
    const pin = readWholePin(parse(line));
    if (pin === null) throw notAPin(line, undefined);
    const place = this.records.count;
    this.records.add(cidKey(pin.cid), (buffer, at) => {
      buffer.write(hash("sha256", optionsKey(pin.options), "binary"), at, 8, "latin1");
      buffer.writeUInt32LE(place, at + 8);
      buffer.writeUInt32LE(pin.options.mode === "direct" ? 1 : 0, at + 12);
    });
  }
}

function matchPart(left: Buffer, right: Buffer, match: PinsetMatch): void {
  const index = new RecordIndex(right);
  const met = new Uint8Array(right.length / RECORD_BYTES);
  for (let at = 0; at < left.length; at += RECORD_BYTES) {
    const place = left.readUInt32LE(at + PLACE_AT);
    const there = index.find(left, at);
    if (there === -1) {
      match.left.set(place, MARKS.missing);
      continue;
    }
    met[there / RECORD_BYTES] = 1;
    if (left.compare(right, there + OPTIONS_AT, there + PLACE_AT, at + OPTIONS_AT, at + PLACE_AT) === 0)
      continue;
    const [here, other] = [left.readUInt32LE(at + DIRECT_AT), right.readUInt32LE(there + DIRECT_AT)];
    const otherPlace = right.readUInt32LE(there + PLACE_AT);
    match.left.set(place, here === 1 && other === 0 ? MARKS.blocked : MARKS.differs);
    match.right.set(otherPlace, other === 1 && here === 0 ? MARKS.blocked : MARKS.differs);
  }
  for (let at = 0; at < right.length; at += RECORD_BYTES) {
    // A CID that is listed twice was met where it stands first.
    if (met[index.find(right, at) / RECORD_BYTES] === 1) continue;
    match.right.set(right.readUInt32LE(at + PLACE_AT), MARKS.missing);
  }
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
