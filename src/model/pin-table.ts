/** The slots of one part before it first grows. */
const FIRST_SLOTS = 64;
const PARTS = 256;
const FULL = 0.8;

/**
 * A set of CIDs, each with a small number and a mark, in about 17 bytes a pin: for joining two lists
 * of millions of pins that come in random order. A CID is kept as a 64-bit hash made with a seed: at
 * 5,000,000 pins two share one with a probability of 7 in 10^7, and nobody who pins can choose them to.
 */
export class PinTable {
  readonly #seed: number;
  readonly #parts: Part[] = Array.from({ length: PARTS }, () => new Part(FIRST_SLOTS));
  #high = 0;
  #low = 0;
  #size = 0;

  /** `seed`: any 32-bit number, another one each run. */
  constructor(seed: number) {
    this.#seed = seed >>> 0;
  }

  /** How many CIDs are in it. */
  get size(): number {
    return this.#size;
  }

  /** Adds a CID with its number (0 to 2^31 - 2), or gives a known one a new number. */
  set(cid: string, value: number): void {
    this.#hash(cid);
    const index = this.#high & (PARTS - 1);
    let part = this.#parts[index] as Part;
    if (part.used >= part.slots * FULL) {
      part = part.grown();
      this.#parts[index] = part;
    }
    if (part.set(this.#high, this.#low, value)) this.#size += 1;
  }

  /** The CID's number, or -1. */
  get(cid: string): number {
    this.#hash(cid);
    return (this.#parts[this.#high & (PARTS - 1)] as Part).get(this.#high, this.#low);
  }

  /** Marks a CID as met; true the first time. One that is not in the table can't be met. */
  meet(cid: string): boolean {
    this.#hash(cid);
    return (this.#parts[this.#high & (PARTS - 1)] as Part).meet(this.#high, this.#low);
  }

  /** True where the CID is in the table and was met. */
  wasMet(cid: string): boolean {
    this.#hash(cid);
    return (this.#parts[this.#high & (PARTS - 1)] as Part).wasMet(this.#high, this.#low);
  }

  /** Two lanes of 32 bits over the characters, mixed at the end. */
  #hash(cid: string): void {
    let a = 0xdeadbeef ^ this.#seed;
    let b = 0x41c6ce57 ^ Math.imul(this.#seed, 0x9e3779b1);
    for (let i = 0; i < cid.length; i++) {
      const code = cid.charCodeAt(i);
      a = Math.imul(a ^ code, 0x9e3779b1);
      b = Math.imul(b ^ code, 0x5f356495);
      a ^= a >>> 15;
      b ^= b >>> 13;
    }
    a = Math.imul(a ^ (a >>> 16), 0x85ebca6b) ^ Math.imul(b ^ (b >>> 13), 0xc2b2ae35);
    b = Math.imul(b ^ (b >>> 16), 0x85ebca6b) ^ Math.imul(a ^ (a >>> 13), 0xc2b2ae35);
    this.#high = (a ^ (a >>> 16)) >>> 0;
    this.#low = (b ^ (b >>> 16)) >>> 0;
  }
}

const MET = 0x80000000;

/** One open-addressing table; a value of 0 marks an empty slot. */
class Part {
  readonly slots: number;
  used = 0;
  readonly #high: Uint32Array;
  readonly #low: Uint32Array;
  readonly #value: Uint32Array;

  constructor(slots: number) {
    this.slots = slots;
    this.#high = new Uint32Array(slots);
    this.#low = new Uint32Array(slots);
    this.#value = new Uint32Array(slots);
  }

  set(keyHigh: number, keyLow: number, value: number): boolean {
    const slot = this.#find(keyHigh, keyLow);
    const fresh = this.#value[slot] === 0;
    this.#high[slot] = keyHigh;
    this.#low[slot] = keyLow;
    this.#value[slot] = value + 1;
    if (fresh) this.used += 1;
    return fresh;
  }

  get(keyHigh: number, keyLow: number): number {
    return ((this.#value[this.#find(keyHigh, keyLow)] as number) & ~MET) - 1;
  }

  meet(keyHigh: number, keyLow: number): boolean {
    const slot = this.#find(keyHigh, keyLow);
    const value = this.#value[slot] as number;
    if (value === 0 || (value & MET) !== 0) return false;
    this.#value[slot] = value | MET;
    return true;
  }

  wasMet(keyHigh: number, keyLow: number): boolean {
    return ((this.#value[this.#find(keyHigh, keyLow)] as number) & MET) !== 0;
  }

  grown(): Part {
    const larger = new Part(Math.ceil(this.slots * 1.5));
    for (let slot = 0; slot < this.slots; slot++) {
      const value = this.#value[slot] as number;
      if (value === 0) continue;
      const at = larger.#find(this.#high[slot] as number, this.#low[slot] as number);
      larger.#high[at] = this.#high[slot] as number;
      larger.#low[at] = this.#low[slot] as number;
      larger.#value[at] = value;
      larger.used += 1;
    }
    return larger;
  }

  #find(keyHigh: number, keyLow: number): number {
    let slot = keyLow % this.slots;
    while (this.#value[slot] !== 0 && (this.#high[slot] !== keyHigh || this.#low[slot] !== keyLow)) {
      slot = slot + 1 === this.slots ? 0 : slot + 1;
    }
    return slot;
  }
}
