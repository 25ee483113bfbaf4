import { createHash } from "node:crypto";

const ALPHABET = "abcdefghijklmnopqrstuvwxyz234567";

/** The CIDv1 (raw, sha2-256) of a text. */
export function cidOf(text: string): string {
  const digest = createHash("sha256").update(text).digest();
  let bits = 0;
  let value = 0;
  let cid = "b";
  for (const byte of Buffer.concat([Buffer.from([0x01, 0x55, 0x12, 0x20]), digest])) {
    value = (value << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      cid += ALPHABET.charAt((value >>> bits) & 31);
      value &= (1 << bits) - 1;
    }
  }
  return bits > 0 ? cid + ALPHABET.charAt((value << (5 - bits)) & 31) : cid;
}
