/** The name of the digest in a manifest: the sum modulo 2^256 of the sha256 of every line, newline left out. */
export const DIGEST_ALGORITHM = "sum-sha256-lines";

const BYTES = 32;

/**
 * An order-independent digest of a set of pin lines: two listings of the same pinset give the same
 * digest in whatever order the peer wrote them. It tells equal from different; against forgery stand
 * the body's own sha256 and the signature.
 */
export class PinsetDigest {
  readonly #sums = new Float64Array(BYTES);

  /** Adds one line by its sha256, given as 32 characters of latin1. */
  add(sha256: string): void {
    const sums = this.#sums;
    for (let i = 0; i < BYTES; i++) sums[i] = (sums[i] as number) + sha256.charCodeAt(i);
  }

  /** The digest so far as 64 hex characters. */
  hex(): string {
    let carry = 0;
    let text = "";
    for (let i = BYTES - 1; i >= 0; i--) {
      const sum = (this.#sums[i] as number) + carry;
      text = (sum % 256).toString(16).padStart(2, "0") + text;
      carry = Math.floor(sum / 256);
    }
    return text;
  }
}
