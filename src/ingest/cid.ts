import { base32 } from "multiformats/bases/base32";
import { base58btc } from "multiformats/bases/base58";
import { CID } from "multiformats/cid";
import { create as createDigest } from "multiformats/hashes/digest";

/** The CID of a block: a CIDv1 with codec raw and a BLAKE3 digest of 32 bytes. */
export interface BlockCid {
  /** Canonical: multibase base32 in lower case, as kubo prints it. */
  readonly text: string;
  /** Lower-case hex, 64 characters. */
  readonly digestHex: string;
}

/** A parsed CID, or why the text is not a block's CID (half a sentence that follows "it"). */
export type ParsedBlockCid =
  | { readonly kind: "cid"; readonly cid: BlockCid }
  | { readonly kind: "invalid"; readonly why: string };

/** multiformats/multicodec, table.csv. */
const RAW = 0x55;
const BLAKE3 = 0x1e;
const DIGEST_BYTES = 32;
const DIGEST_HEX = /^[0-9a-f]{64}$/;
/** Longer than any encoding of 36 bytes. Longer texts are refused without decoding. */
const MAX_CHARACTERS = 64;

/**
 * Parses a block's CID in multibase base32 (`b`) or base58btc (`z`). It accepts only the canonical spelling: no
 * padding, no upper case, no leftover bits. `why` distinguishes other codecs, hashes and lengths.
 */
export function parseBlockCid(text: string): ParsedBlockCid {
  if (text.length > MAX_CHARACTERS) return invalid(`has more than ${MAX_CHARACTERS} characters`);
  if (/^Qm[1-9A-Za-z]{44}$/.test(text)) return invalid("is a CIDv0, which can't be the CID of a raw block");
  const base = text.startsWith("b") ? base32 : text.startsWith("z") ? base58btc : null;
  if (base === null) return invalid("is neither base32 (b...) nor base58btc (z...)");
  const bytes = decodeOr(base, text);
  // Encode again and compare: the decoders also accept padding, upper case and, in base58, characters outside the alphabet.
  if (bytes === null || base.encode(bytes) !== text)
    return invalid("contains characters or bits that are not valid in its base");
  return checkHeader(text, bytes);
}

/** The CID of the block with this digest (64 characters of lower-case hex; throws for anything else). */
export function blockCidOf(digestHex: string): BlockCid {
  if (!DIGEST_HEX.test(digestHex)) throw new RangeError("a block's digest has 64 characters of hex");
  const cid = CID.createV1(RAW, createDigest(BLAKE3, Buffer.from(digestHex, "hex")));
  return { text: cid.toString(base32), digestHex };
}

function checkHeader(text: string, bytes: Uint8Array): ParsedBlockCid {
  const head = headOf(bytes);
  if (head?.version !== 1) return invalid("is not a CIDv1");
  if (head.codec !== RAW) return invalid("has a codec other than raw (0x55)");
  if (head.multihashCode !== BLAKE3) return invalid("has a hash other than blake3 (0x1e)");
  if (head.digestSize !== DIGEST_BYTES || head.size !== bytes.length)
    return invalid("has a digest that is not 32 bytes long");
  const digestHex = Buffer.from(bytes.subarray(-DIGEST_BYTES)).toString("hex");
  return { kind: "cid", cid: { text: text.startsWith("b") ? text : base32.encode(bytes), digestHex } };
}

function invalid(why: string): ParsedBlockCid {
  return { kind: "invalid", why };
}

/** Null if the text can't be decoded. */
function decodeOr(base: typeof base32 | typeof base58btc, text: string): Uint8Array | null {
  try {
    return base.decode(text);
  } catch {
    return null;
  }
}

/** Version, codec and hash of a CID. Null if the bytes do not start like a CID. */
function headOf(bytes: Uint8Array): ReturnType<typeof CID.inspectBytes> | null {
  try {
    return CID.inspectBytes(bytes);
  } catch {
    return null;
  }
}
