const NEWLINE = 0x0a;
const SPACE = 0x20;
const QUOTE = 0x22;
const COMMA = 0x2c;
const BACKSLASH = 0x5c;
const OPEN = 0x7b;
const CLOSE = 0x7d;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;

/**
 * Turns a stream of JSON objects into one object a line, without holding more than one: objects that
 * follow each other in any layout (as `ipfs-cluster-ctl --enc=json` prints them), or in one array.
 * Nothing but line ends between tokens is changed.
 */
export class JsonElements {
  #depth = 0;
  #inString = false;
  #escaped = false;
  #array: "not seen" | "open" | "closed" = "not seen";
  #elements = 0;

  /** The next bytes; gives those of whole and begun elements, a newline behind each that ended. Throws an Error for what is no JSON object. */
  add(bytes: Uint8Array): Uint8Array {
    const out = new Uint8Array(bytes.length + countCloses(bytes));
    let used = 0;
    for (const byte of bytes) {
      if (this.#depth === 0) {
        if (!this.#between(byte)) continue;
        this.#depth = 1;
        out[used++] = byte;
        continue;
      }
      out[used++] = byte === NEWLINE || byte === 0x0d ? SPACE : byte;
      if (this.#inside(byte)) out[used++] = NEWLINE;
    }
    return out.subarray(0, used);
  }

  /** Call at the end. Throws an Error where something was left open. */
  end(): void {
    if (this.#depth > 0 || this.#array === "open") throw new Error("it ends in the middle");
  }

  /** True where an element begins. */
  #between(byte: number): boolean {
    if (byte <= SPACE) return false;
    if (this.#array === "closed") throw new Error("something follows the end of the array");
    if (byte === OPEN) return true;
    if (byte === OPEN_ARRAY && this.#array === "not seen" && this.#elements === 0) {
      this.#array = "open";
      return false;
    }
    if (byte === CLOSE_ARRAY && this.#array === "open") {
      this.#array = "closed";
      return false;
    }
    if (byte === COMMA && this.#array === "open" && this.#elements > 0) return false;
    throw new Error("it holds something that is no JSON object");
  }

  /** True where the element ends. */
  #inside(byte: number): boolean {
    if (this.#inString) {
      if (this.#escaped) this.#escaped = false;
      else if (byte === BACKSLASH) this.#escaped = true;
      else if (byte === QUOTE) this.#inString = false;
      return false;
    }
    if (byte === QUOTE) this.#inString = true;
    else if (byte === OPEN || byte === OPEN_ARRAY) this.#depth += 1;
    else if (byte === CLOSE || byte === CLOSE_ARRAY) this.#depth -= 1;
    if (this.#depth > 0) return false;
    this.#elements += 1;
    return true;
  }
}

function countCloses(bytes: Uint8Array): number {
  let count = 0;
  for (const byte of bytes) if (byte === CLOSE || byte === CLOSE_ARRAY) count += 1;
  return count;
}
