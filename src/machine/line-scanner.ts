const NEWLINE = 0x0a;
const BLOCK_BYTES = 256 * 1024;

/** Counts the lines of a block of complete lines. A last line without a newline also counts. */
export function countLines(block: Uint8Array): number {
  return block.length > 0 && block.at(-1) !== NEWLINE ? countNewlines(block) + 1 : countNewlines(block);
}

/** Counts the newlines. */
export function countNewlines(bytes: Uint8Array): number {
  let count = 0;
  for (let at = bytes.indexOf(NEWLINE); at !== -1; at = bytes.indexOf(NEWLINE, at + 1)) count += 1;
  return count;
}

/** The lines of a block, without newlines and without empty lines. Nothing is copied. */
export function* splitLines(block: Buffer): Generator<Buffer> {
  let start = 0;
  while (start < block.length) {
    const newline = block.indexOf(NEWLINE, start);
    const end = newline === -1 ? block.length : newline;
    if (end > start) yield block.subarray(start, end);
    start = end + 1;
  }
}

/** No line of a pinset is longer: the request that made the pin had to fit in the head of an HTTP request. */
const MAX_LINE_BYTES = 16 * 1024 * 1024;

/** A stream has a line that is too long to be a pin. */
export class LineTooLong extends Error {
  constructor() {
    super(`a line is longer than ${MAX_LINE_BYTES / 1024 / 1024} MiB`);
  }
}

/** Collects the parts of a stream into blocks of complete lines. The caller may keep the blocks. Memory is bounded by the longest line. */
export class LineBlocks {
  #buffer = Buffer.allocUnsafe(BLOCK_BYTES);
  #used = 0;

  /** Returns a block of complete lines if one is full, otherwise null. Throws LineTooLong. */
  add(part: Uint8Array): Buffer | null {
    if (this.#used + part.length <= this.#buffer.length) {
      this.#buffer.set(part, this.#used);
      this.#used += part.length;
      return null;
    }
    const complete = this.#used === 0 ? 0 : this.#buffer.lastIndexOf(NEWLINE, this.#used - 1) + 1;
    const carried = this.#used - complete;
    if (carried > MAX_LINE_BYTES) throw new LineTooLong();
    const next = Buffer.allocUnsafe(Math.max(BLOCK_BYTES, (carried + part.length) * 2));
    this.#buffer.copy(next, 0, complete, this.#used);
    next.set(part, carried);
    const block = this.#buffer.subarray(0, complete);
    this.#buffer = next;
    this.#used = carried + part.length;
    return block.length === 0 ? null : block;
  }

  /** The rest at the end of the stream, including a last line without a newline. */
  rest(): Buffer {
    return this.#buffer.subarray(0, this.#used);
  }
}

/**
 * A longer line of a log is left out: one line must not fill the memory, and a part of it could begin or end inside of a secret,
 * which nothing recognises then.
 */
const MAX_LOG_LINE_BYTES = 1024 * 1024;
const LEFT_OUT = `[left out: a line of more than ${MAX_LOG_LINE_BYTES / 1024 / 1024} MiB]`;
/** The time at the beginning of a line, which is also shown of one that is left out. */
const LEADING_TIME = /^\d{4}-\d\d-\d\dT[\d:.]{8,18}Z /;
const MAX_TIME_BYTES = 32;

/** Cuts bytes into lines. What is left of a line is kept for the next bytes, as far as the limit. */
export class LineSplitter {
  #kept: Buffer[] = [];
  #keptBytes = 0;
  #isLeftOut = false;

  /** True after bytes that did not end with a newline. */
  get hasHalfLine(): boolean {
    return this.#keptBytes > 0;
  }

  /** The lines that end in these bytes, without their newline. The bytes may be used again afterwards. */
  *add(bytes: Buffer): Generator<string> {
    let start = 0;
    for (let at = bytes.indexOf(NEWLINE); at !== -1; at = bytes.indexOf(NEWLINE, start)) {
      this.#keep(bytes.subarray(start, at));
      yield this.#take();
      start = at + 1;
    }
    this.#keep(bytes.subarray(start));
  }

  /** What has no newline behind it. */
  *rest(): Generator<string> {
    if (this.#keptBytes > 0) yield this.#take();
  }

  #keep(bytes: Buffer): void {
    if (bytes.length === 0 || this.#isLeftOut) return;
    this.#kept.push(Buffer.from(bytes));
    this.#keptBytes += bytes.length;
    if (this.#keptBytes <= MAX_LOG_LINE_BYTES) return;
    const start = Buffer.concat(this.#kept).toString("latin1", 0, MAX_TIME_BYTES);
    this.#kept = [Buffer.from(`${LEADING_TIME.exec(start)?.[0] ?? ""}${LEFT_OUT}`)];
    this.#isLeftOut = true;
  }

  #take(): string {
    const text = Buffer.concat(this.#kept).toString("utf8");
    this.#kept = [];
    this.#keptBytes = 0;
    this.#isLeftOut = false;
    return text.endsWith("\r") ? text.slice(0, -1) : text;
  }
}
