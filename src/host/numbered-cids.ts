import { keyOfCid, OWN_BYTES_AT, PARTS, RECORD_BYTES, RecordIndex, RecordSpill } from "./record-spill.ts";

/** CIDs on the disk, each with a number (0 to 2^32 - 1), known by their keys only; 32 bytes each. */
export interface NumberedCids {
  add(cid: string, number: number): void;
  /** As add, for a CID of which only the key is known. */
  addKey(key: string, number: number): void;
  readonly count: number;
  /** Gives the disk's room back. */
  close(): void;
}

/** Opens an empty one in a directory on a disk. */
export function openNumberedCids(directory: string): NumberedCids {
  return new Numbered(directory);
}

/** What a CID is known by once its text is gone. */
export const cidKey = keyOfCid;

/**
 * Visits every CID of `left` with its number there, its number in `right` (-1 where it is not in there),
 * and a function that gives its key. A CID that `left` has twice is visited once. Both must be of openNumberedCids.
 */
export function joinNumberedCids(
  left: NumberedCids,
  right: NumberedCids,
  visit: (leftNumber: number, rightNumber: number, key: () => string) => void,
): void {
  if (!(left instanceof Numbered) || !(right instanceof Numbered)) throw new Error("CIDs of another make");
  for (let part = 0; part < PARTS; part++) {
    const own = new RecordIndex(left.records.part(part));
    const other = new RecordIndex(right.records.part(part));
    let at = 0;
    const key = (): string => own.records.toString("latin1", at, at + OWN_BYTES_AT);
    for (; at < own.records.length; at += RECORD_BYTES) {
      if (own.find(own.records, at) !== at) continue;
      const there = other.find(own.records, at);
      const number = there === -1 ? -1 : other.records.readUInt32LE(there + OWN_BYTES_AT);
      visit(own.records.readUInt32LE(at + OWN_BYTES_AT), number, key);
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
    this.addKey(keyOfCid(cid), number);
  }

  addKey(key: string, number: number): void {
    this.records.add(key, (buffer, at) => void buffer.writeUInt32LE(number, at));
  }

  close(): void {
    this.records.close();
  }
}
