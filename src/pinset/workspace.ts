import { hash, randomBytes } from "node:crypto";
import { open, unlink } from "node:fs/promises";
import { join } from "node:path";
import { linesOf, optionsKey, readWholePin } from "../cluster/pin.ts";
import { OperatorError } from "../errors.ts";
import { type BodyEncoding, copyBody, readBody, type SignedBody, type TakeBodyLines } from "./body-reader.ts";
import { BodyWriter } from "./body-writer.ts";
import { MARKS, PinsetMarks } from "./marks.ts";
import {
  cidKey,
  joinNumberedCids,
  type NumberedCids,
  openNumberedCids,
  CONTENT_AT,
  PARTS,
  RECORD_BYTES,
  RecordIndex,
  RecordSpill,
} from "./spill.ts";
import { temporaryFault } from "./temporary-fault.ts";

/** A listing stored on the disk, so that it can be read several times, like a snapshot. */
interface PinsetSpool {
  /** Writes whole lines of pins. If it returns a promise, wait for it before the next call. */
  write(lines: Buffer): void | Promise<void>;
  finish(): Promise<void>;
  read(takeLines: TakeBodyLines): Promise<void>;
  /** Frees the disk space. */
  close(): Promise<void>;
}

/** The body of a snapshot after verification. */
interface VerifiedBody extends Pick<SignedBody, "sizeBytes" | "sha256"> {
  readonly path: string;
  readonly encoding: BodyEncoding;
}

/** Temporary disk space for work on pinsets of any size. Its files are unlinked at once, so nothing is left behind. */
export interface PinsetWorkspace {
  openSpill(): PinsetSpill;
  matchSpills(left: PinsetSpill, right: PinsetSpill): PinsetMatch;
  openSpool(): Promise<PinsetSpool>;
  /** Copies a verified body, so that nobody can change it any more. Throws (`integrity`) if it is not the verified one. */
  copyBody(body: VerifiedBody): Promise<Pick<PinsetSpool, "read" | "close">>;
  openNumberedCids(): NumberedCids;
  readonly joinNumberedCids: typeof joinNumberedCids;
  /** The key of a CID in NumberedCids. */
  readonly cidKey: typeof cidKey;
}

/** Opens a workspace in a directory that is on a disk, such as /var/tmp. */
export function openWorkspace(directory: string): PinsetWorkspace {
  return {
    openSpill: () => openSpill(directory),
    matchSpills,
    openNumberedCids: () => openNumberedCids(directory),
    joinNumberedCids,
    cidKey,
    copyBody: ({ path, encoding, ...verified }) => copyInto(directory, path, encoding, verified),
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

async function copyInto(
  directory: string,
  from: string,
  encoding: BodyEncoding,
  verified: Pick<SignedBody, "sizeBytes" | "sha256">,
): Promise<Pick<PinsetSpool, "read" | "close">> {
  const path = join(directory, `.fula-node-body-${randomBytes(8).toString("hex")}`);
  const guarded = guard(directory);
  const copy = await guarded(open(path, "wx+", 0o600));
  try {
    await guarded(unlink(path));
    await guarded(copyBody(from, verified, copy));
  } catch (thrown) {
    await copy.close();
    throw thrown;
  }
  return {
    read: async (takeLines) => void (await readBody(`/proc/self/fd/${copy.fd}`, encoding, { takeLines })),
    close: () => copy.close(),
  };
}

function guard(directory: string): <T>(work: Promise<T>) => Promise<T> {
  return (work) =>
    work.catch((cause: unknown) => {
      if (cause instanceof OperatorError) throw cause;
      throw temporaryFault(directory, cause);
    });
}

/** A pinset stored on the disk for a comparison, 32 bytes per pin. */
export interface PinsetSpill {
  /** Adds whole lines, one pin per line. Throws an OperatorError if a line is not a pin or the disk is full. */
  add(lines: Buffer): void;
  /** Frees the disk space. */
  close(): void;
}

/** The result of a comparison of two pinsets: one mark for each pin, in the order of the lines. */
export interface PinsetMatch {
  readonly left: PinsetMarks;
  readonly right: PinsetMarks;
}

/** Opens a spill in a directory that is on a disk. */
export function openSpill(directory: string): PinsetSpill {
  return new Spill(directory);
}

/**
 * Compares two spills pin by pin. At any time, 1/64 of both is in memory (5 MB for 5,000,000 pins), and
 * the marks, two bits per pin. Both spills must come from openSpill.
 */
export function matchSpills(left: PinsetSpill, right: PinsetSpill): PinsetMatch {
  if (!(left instanceof Spill) || !(right instanceof Spill))
    throw new Error("a spill that openSpill did not create");
  const match = {
    left: new PinsetMarks(left.records.count),
    right: new PinsetMarks(right.records.count),
  };
  for (let part = 0; part < PARTS; part++)
    matchPart(left.records.part(part), right.records.part(part), match);
  return match;
}

/** The content of a record: 8 bytes of the options' sha256, the pin's place (4 bytes), and 1 if the pin is direct (4 bytes). */
const OPTIONS_AT = CONTENT_AT;
const PLACE_AT = CONTENT_AT + 8;
const DIRECT_AT = CONTENT_AT + 12;

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
  const matched = new Uint8Array(right.length / RECORD_BYTES);
  for (let at = 0; at < left.length; at += RECORD_BYTES) {
    const place = left.readUInt32LE(at + PLACE_AT);
    const there = index.find(left, at);
    if (there === -1) {
      match.left.set(place, MARKS.missing);
      continue;
    }
    matched[there / RECORD_BYTES] = 1;
    if (left.compare(right, there + OPTIONS_AT, there + PLACE_AT, at + OPTIONS_AT, at + PLACE_AT) === 0)
      continue;
    const [here, other] = [left.readUInt32LE(at + DIRECT_AT), right.readUInt32LE(there + DIRECT_AT)];
    const otherPlace = right.readUInt32LE(there + PLACE_AT);
    match.left.set(place, here === 1 && other === 0 ? MARKS.blocked : MARKS.differs);
    match.right.set(otherPlace, other === 1 && here === 0 ? MARKS.blocked : MARKS.differs);
  }
  for (let at = 0; at < right.length; at += RECORD_BYTES) {
    // If a CID is listed twice, the index finds only its first record.
    if (matched[index.find(right, at) / RECORD_BYTES] === 1) continue;
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
    what: `A line of a pinset cannot be read: ${line.length > 80 ? `${line.slice(0, 80)}…` : line}`,
    why: "A list with an unreadable line is not complete.",
    cause,
  });
}
