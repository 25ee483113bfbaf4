const NEWLINE = 0x0a;
const BLOCK_BYTES = 256 * 1024;

/** How many lines a block of whole lines has; one at its end that lost its newline counts too. */
export function countLines(block: Uint8Array): number {
  return block.length > 0 && block.at(-1) !== NEWLINE ? countNewlines(block) + 1 : countNewlines(block);
}

/** How many newlines are in it. */
export function countNewlines(bytes: Uint8Array): number {
  let count = 0;
  for (let at = bytes.indexOf(NEWLINE); at !== -1; at = bytes.indexOf(NEWLINE, at + 1)) count += 1;
  return count;
}

/** The lines of a block without their newlines, blank ones left out. Nothing is copied. */
export function* splitLines(block: Buffer): Generator<Buffer> {
  let start = 0;
  while (start < block.length) {
    const newline = block.indexOf(NEWLINE, start);
    const end = newline === -1 ? block.length : newline;
    if (end > start) yield block.subarray(start, end);
    start = end + 1;
  }
}

/** Collects the parts of a stream into blocks of whole lines; the blocks are the receiver's to keep. */
export class LineBlocks {
  #buffer = Buffer.allocUnsafe(BLOCK_BYTES);
  #used = 0;

  /** A block of whole lines when one is full, else null. */
  add(part: Uint8Array): Buffer | null {
    if (this.#used + part.length <= this.#buffer.length) {
      this.#buffer.set(part, this.#used);
      this.#used += part.length;
      return null;
    }
    const held = this.#used === 0 ? 0 : this.#buffer.lastIndexOf(NEWLINE, this.#used - 1) + 1;
    const carried = this.#used - held;
    const next = Buffer.allocUnsafe(Math.max(BLOCK_BYTES, (carried + part.length) * 2));
    this.#buffer.copy(next, 0, held, this.#used);
    next.set(part, carried);
    const block = this.#buffer.subarray(0, held);
    this.#buffer = next;
    this.#used = carried + part.length;
    return block.length === 0 ? null : block;
  }

  /** What is left at the end; a last line without its newline is in it, too. */
  rest(): Buffer {
    return this.#buffer.subarray(0, this.#used);
  }
}
