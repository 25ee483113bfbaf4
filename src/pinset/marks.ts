/** How one pin stands towards another pinset. */
export const MARKS = {
  /** There, with the same options. */
  same: 0,
  /** Not there. */
  missing: 1,
  /** There, with other options. */
  differs: 2,
  /** There, recursive, while this one is direct: a pin can't be made direct again without an unpin. */
  blocked: 3,
} as const;

export type Mark = (typeof MARKS)[keyof typeof MARKS];

/** One mark for each pin of a pinset by its place in it: two bits a pin. */
export class PinsetMarks {
  readonly #bits: Uint8Array;
  readonly size: number;

  /** All `same` at first. */
  constructor(size: number) {
    this.size = size;
    this.#bits = new Uint8Array(Math.ceil(size / 4));
  }

  set(place: number, mark: Mark): void {
    const shift = (place & 3) * 2;
    const at = place >>> 2;
    this.#bits[at] = ((this.#bits[at] as number) & ~(3 << shift)) | (mark << shift);
  }

  get(place: number): Mark {
    return (((this.#bits[place >>> 2] as number) >>> ((place & 3) * 2)) & 3) as Mark;
  }

  /** How many pins have this mark. */
  count(mark: Mark): number {
    let count = 0;
    for (let place = 0; place < this.size; place++) if (this.get(place) === mark) count += 1;
    return count;
  }
}
