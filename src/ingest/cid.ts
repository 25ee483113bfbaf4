import { base32 } from "multiformats/bases/base32";
import { base58btc } from "multiformats/bases/base58";
import { CID } from "multiformats/cid";
import { create as createDigest } from "multiformats/hashes/digest";

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

/** multiformats/multicodec, table.csv. */
const RAW = 0x55;
const BLAKE3 = 0x1e;
const DIGEST_BYTES = 32;
const DIGEST_HEX = /^[0-9a-f]{64}$/;
/** Longer than any text of 36 bytes; nothing longer is looked at. */
const MOST_CHARACTERS = 64;

/**
 * Reads a block's name from multibase base32 (`b`) or base58btc (`z`), and takes one spelling only of each: no
 * padding, no upper case, no bits left over. Other codecs, hashes and lengths are told apart in `why`.
 */
export function parseBlockCid(text: string): ParsedBlockCid {
  if (text.length > MOST_CHARACTERS) return invalid(`has more than ${MOST_CHARACTERS} characters`);
  if (/^Qm[1-9A-Za-z]{44}$/.test(text)) return invalid("is a CIDv0, which names no raw block");
  const base = text.startsWith("b") ? base32 : text.startsWith("z") ? base58btc : null;
  if (base === null) return invalid("is neither base32 (b...) nor base58btc (z...)");
  const bytes = decodeOr(base, text);
  // Written again: the decoders also take padding, upper case, and in base58 characters of no alphabet.
  if (bytes === null || base.encode(bytes) !== text)
    return invalid("holds characters or bits that its base does not have");
  return judge(text, bytes);
}

/** The name of the block with this digest (64 characters of lower-case hex; throws for anything else). */
export function blockCidOf(digestHex: string): BlockCid {
  if (!DIGEST_HEX.test(digestHex)) throw new RangeError("a block's digest has 64 characters of hex");
  const cid = CID.createV1(RAW, createDigest(BLAKE3, Buffer.from(digestHex, "hex")));
  return { text: cid.toString(base32), digestHex };
}

function judge(text: string, bytes: Uint8Array): ParsedBlockCid {
  const head = headOf(bytes);
  if (head?.version !== 1) return invalid("is no CIDv1");
  if (head.codec !== RAW) return invalid("has another codec than raw (0x55)");
  if (head.multihashCode !== BLAKE3) return invalid("has another hash than blake3 (0x1e)");
  if (head.digestSize !== DIGEST_BYTES || head.size !== bytes.length)
    return invalid("has no digest of 32 bytes");
  const digestHex = Buffer.from(bytes.subarray(-DIGEST_BYTES)).toString("hex");
  return { kind: "cid", cid: { text: text.startsWith("b") ? text : base32.encode(bytes), digestHex } };
}

function invalid(why: string): ParsedBlockCid {
  return { kind: "invalid", why };
}

/** Null for text that the base can't be read from. */
function decodeOr(base: typeof base32 | typeof base58btc, text: string): Uint8Array | null {
  try {
    return base.decode(text);
  } catch {
    return null;
  }
}

/** Version, codec and hash of a CID; null for bytes that do not begin as one does. */
function headOf(bytes: Uint8Array): ReturnType<typeof CID.inspectBytes> | null {
  try {
    return CID.inspectBytes(bytes);
  } catch {
    return null;
  }
}
