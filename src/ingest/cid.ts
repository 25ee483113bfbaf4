/** The name of a block: a CIDv1 of codec raw over a BLAKE3 digest of 32 bytes. */
export interface BlockCid {
  /** Canonical: multibase base32 in lower case, as kubo prints it. */
  readonly text: string;
  /** Lower-case hex, 64 characters. */
  readonly digestHex: string;
}

/** What a text is: a block's name, or why it is none (half a sentence, to be put after "it"). */
export type ParsedBlockCid =
  | { readonly kind: "cid"; readonly cid: BlockCid }
  | { readonly kind: "invalid"; readonly why: string };

/** CIDv1, raw, blake3, 32 bytes (multiformats/multicodec table.csv: 0x01, 0x55, 0x1e). */
const PREFIX_HEX = "01551e20";
const CID_BYTES = 36;
const DIGEST_HEX = /^[0-9a-f]{64}$/;
const BASE32 = "abcdefghijklmnopqrstuvwxyz234567";
const BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/** Longer than any text of 36 bytes; nothing longer is looked at. */
const MOST_CHARACTERS = 64;

/**
 * Reads a block's name from multibase base32 (`b`) or base58btc (`z`), and takes one spelling only of each: no
 * padding, no upper case, no bits left over. Other codecs, hashes and lengths are told apart in `why`.
 */
export function parseBlockCid(text: string): ParsedBlockCid {
  if (text.length > MOST_CHARACTERS) return invalid(`has more than ${MOST_CHARACTERS} characters`);
  if (/^Qm[1-9A-Za-z]{44}$/.test(text)) return invalid("is a CIDv0, which names no raw block");
  const body = text.slice(1);
  const hex = text.startsWith("b")
    ? decodeBase32(body)
    : text.startsWith("z")
      ? decodeBase58(body)
      : undefined;
  if (hex === undefined) return invalid("is neither base32 (b...) nor base58btc (z...)");
  if (hex === null) return invalid("holds characters or bits that its base does not have");
  return judge(hex);
}

/** The name of the block with this digest (64 characters of lower-case hex; throws for anything else). */
export function blockCidOf(digestHex: string): BlockCid {
  if (!DIGEST_HEX.test(digestHex)) throw new RangeError("a block's digest has 64 characters of hex");
  return { text: `b${encodeBase32(PREFIX_HEX + digestHex)}`, digestHex };
}

function judge(hex: string): ParsedBlockCid {
  if (!hex.startsWith("01")) return invalid("is no CIDv1");
  if (!hex.startsWith("0155")) return invalid("has another codec than raw (0x55)");
  if (!hex.startsWith("01551e")) return invalid("has another hash than blake3 (0x1e)");
  if (!hex.startsWith(PREFIX_HEX) || hex.length !== CID_BYTES * 2)
    return invalid("has no digest of 32 bytes");
  return { kind: "cid", cid: blockCidOf(hex.slice(PREFIX_HEX.length)) };
}

function invalid(why: string): ParsedBlockCid {
  return { kind: "invalid", why };
}

/** RFC 4648 without padding; bits that fill the last character up must be zero. */
function decodeBase32(text: string): string | null {
  let value = 0;
  let bits = 0;
  let hex = "";
  for (const character of text) {
    const digit = BASE32.indexOf(character);
    if (digit === -1) return null;
    value = (value << 5) | digit;
    bits += 5;
    if (bits < 8) continue;
    bits -= 8;
    hex += byteToHex(value >>> bits);
    value &= (1 << bits) - 1;
  }
  return bits < 5 && value === 0 ? hex : null;
}

function encodeBase32(hex: string): string {
  let value = 0;
  let bits = 0;
  let text = "";
  for (let at = 0; at < hex.length; at += 2) {
    value = (value << 8) | Number.parseInt(hex.slice(at, at + 2), 16);
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += BASE32.charAt(value >>> bits);
      value &= (1 << bits) - 1;
    }
  }
  return bits === 0 ? text : text + BASE32.charAt(value << (5 - bits));
}

/** A leading `1` stands for a zero byte, with which no CIDv1 begins. */
function decodeBase58(text: string): string | null {
  let value = 0n;
  for (const character of text) {
    const digit = BASE58.indexOf(character);
    if (digit === -1) return null;
    value = value * 58n + BigInt(digit);
  }
  const zeros = /^1*/.exec(text)?.[0].length ?? 0;
  const hex = value === 0n ? "" : value.toString(16);
  return "00".repeat(zeros) + (hex.length % 2 === 1 ? `0${hex}` : hex);
}

function byteToHex(byte: number): string {
  return byte.toString(16).padStart(2, "0");
}
