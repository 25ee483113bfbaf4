import { base16upper, base16 } from "multiformats/bases/base16";
import { base32, base32upper } from "multiformats/bases/base32";
import { base36, base36upper } from "multiformats/bases/base36";
import { base58btc } from "multiformats/bases/base58";
import { base64, base64url } from "multiformats/bases/base64";
import type { MultibaseDecoder, MultibaseEncoder } from "multiformats/cid";
import { CID } from "multiformats/cid";

/** A parsed CID. */
export interface ParsedCid {
  /** A CIDv0 as it is (`Qm...`); a CIDv1 in base32 (`bafy...`), as kubo and ipfs-cluster print them. */
  readonly text: string;
  readonly cid: CID;
}

const DAG_PB = 0x70;
const SHA2_256 = 0x12;
/** Longer than any encoding of a digest of 64 bytes. Longer texts are refused without decoding. */
const MAX_CHARACTERS = 256;

const CODINGS = [base16, base16upper, base32, base32upper, base36, base36upper, base58btc, base64, base64url];
const ENCODERS: readonly MultibaseEncoder<string>[] = CODINGS;
const BASES: Readonly<Record<string, MultibaseDecoder<string>>> = Object.fromEntries(
  CODINGS.map((base) => [base.prefix, base]),
);

/** Parses a CID in any of the usual bases. Null if the text is not a CID. A path, such as `/ipfs/bafy...`, is not one. */
export function parseCid(text: string): ParsedCid | null {
  if (text.length === 0 || text.length > MAX_CHARACTERS) return null;
  try {
    if (/^Qm[1-9A-HJ-NP-Za-km-z]{44}$/.test(text)) return parsed(CID.parse(text));
    const base = BASES[text.charAt(0)];
    return base === undefined ? null : parsed(CID.parse(text, base));
  } catch {
    return null;
  }
}

/** The hashes that kubo takes (boxo, verifcid): SHA-1, SHA-2, SHA-3, SHAKE-256, Keccak, BLAKE3 and double SHA-2. */
const HASHES = new Set([
  0x11,
  SHA2_256,
  0x13,
  0x14,
  0x15,
  0x16,
  0x17,
  0x19,
  0x1a,
  0x1b,
  0x1c,
  0x1d,
  0x1e,
  0x56,
]);
const IDENTITY = 0x00;
/** The shortest digest that kubo takes of a hash, and the longest of any CID, in bytes. */
const [SHORTEST, LONGEST] = [20, 128];

/** Why kubo refuses a CID, whatever nodes have; null: it does not. */
export function whyNeverPinned({ cid: { multihash } }: ParsedCid): string | null {
  const { code, size } = multihash;
  if (size > LONGEST) return `its digest is longer than ${LONGEST} bytes`;
  if (code === IDENTITY) return null;
  if (size < SHORTEST) return `its digest is shorter than ${SHORTEST} bytes`;
  const isBlake2 = (code >= 0xb214 && code <= 0xb240) || (code >= 0xb254 && code <= 0xb260);
  return HASHES.has(code) || isBlake2 ? null : "its hash is not one that kubo takes";
}

function parsed(cid: CID): ParsedCid {
  return { text: cid.version === 0 ? cid.toString() : cid.toString(base32), cid };
}

/**
 * The texts under which our rows and the cluster have a content with this codec: the CIDv1 in base32, and the CIDv0 where
 * there is one.
 */
export function usualSpellingsOf({ cid }: ParsedCid): readonly string[] {
  const v1 = cid.toV1().toString(base32);
  const hasV0 = cid.code === DAG_PB && cid.multihash.code === SHA2_256 && cid.multihash.size === 32;
  return hasV0 ? [v1, cid.toV0().toString()] : [v1];
}

/**
 * Every text under which a row can have the same content with the same codec, the usual ones first. Rows of upstream's
 * pinning API have a CID as its sender wrote it.
 */
export function spellingsOf(parsedCid: ParsedCid): readonly string[] {
  const v1 = parsedCid.cid.toV1();
  const others = ENCODERS.map((base) => v1.toString(base));
  return [...new Set([...usualSpellingsOf(parsedCid), ...others])];
}

/**
 * The multihash as hex, as migration 031 (cid_content) has it for the rows of blocked_cids. A blocked content is blocked
 * with every codec: the bytes are the same.
 */
export function contentOf({ cid }: ParsedCid): string {
  return Buffer.from(cid.multihash.bytes).toString("hex");
}

/** multiformats/multicodec, table.csv: the codecs under which one content is commonly named. */
const CODECS = [0x55, 0x70, 0x71, 0x0129, 0x72];

/** Every text under which a row can have the same bytes with a common codec. */
export function spellingsOfContent({ cid }: ParsedCid): readonly string[] {
  const texts = [...CODECS, cid.code].flatMap((codec) => {
    const other = CID.createV1(codec, cid.multihash);
    return spellingsOf({ text: other.toString(base32), cid: other });
  });
  return [...new Set(texts)];
}
