const BITS = 1 << 24;
const PROBES = 4;

/**
 * Remembers texts in 2 MiB, however many there are (a Bloom filter). What was added is always found; of others, one in a
 * few hundred is found by mistake at a million, and more at ten million. Another seed makes other mistakes.
 */
export class SeenCids {
  readonly #bits = new Uint32Array(BITS / 32);
  readonly #seed: number;

  constructor(seed: number) {
    this.#seed = seed;
  }

  add(text: string): void {
    for (const bit of this.#probesOf(text))
      this.#bits[bit >>> 5] = (this.#bits[bit >>> 5] ?? 0) | (1 << (bit & 31));
  }

  has(text: string): boolean {
    return this.#probesOf(text).every((bit) => ((this.#bits[bit >>> 5] ?? 0) & (1 << (bit & 31))) !== 0);
  }

  #probesOf(text: string): readonly number[] {
    const first = hashOf(text, this.#seed);
    const step = hashOf(text, this.#seed ^ 0x9e3779b9) | 1;
    return Array.from({ length: PROBES }, (_, probe) => (first + probe * step) & (BITS - 1));
  }
}

/** FNV-1a with the final mix of MurmurHash3. */
function hashOf(text: string, seed: number): number {
  let hash = 0x811c9dc5 ^ seed;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
