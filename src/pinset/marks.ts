/** How one pin compares with another pinset. */
export const MARKS = {
  /** Present, with the same options. */
  same: 0,
  /** Not present. */
  missing: 1,
  /** Present, with other options. */
  differs: 2,
  /** Present as a recursive pin, while this one is direct. Only an unpin could make it direct again. */
  blocked: 3,
} as const;

export type Mark = (typeof MARKS)[keyof typeof MARKS];

/** One mark for each pin of a pinset, by the place of the pin in the list: two bits per pin. */
export class PinsetMarks {
  readonly #bits: Uint8Array;
  readonly size: number;

  /** All marks start as `same`. */
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
