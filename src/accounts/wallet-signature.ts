import { keccak_256 } from "@noble/hashes/sha3.js";
import { Point, recoverPublicKey, Signature } from "@noble/secp256k1";

/**
 * The Ethereum account, as `0x` and 40 lower-case hexadecimal digits, whose key signed a digest of 32 bytes. Null if the
 * signature is not valid: 65 bytes (r, s, v) with v 0, 1, 27 or 28, r and s from 1 to n - 1, and s in the lower half. Each
 * signature has a twin (r, n - s) that anybody can compute, so only one of the two is accepted (EIP-2).
 */
export function signerOf(digest: Uint8Array, signature: Uint8Array): string | null {
  const v = signature[64];
  if (signature.length !== 65 || v === undefined || ![0, 1, 27, 28].includes(v)) return null;
  const recovery = v % 27;
  try {
    const parsed = Signature.fromBytes(signature.subarray(0, 64), "compact");
    if (parsed.hasHighS()) return null;
    const recovered = new Signature(parsed.r, parsed.s, recovery).toBytes("recovered");
    return addressOf(recoverPublicKey(recovered, digest, { prehash: false }));
  } catch {
    return null;
  }
}

/** The Ethereum account of a public key: the last 20 bytes of the Keccak-256 of its two coordinates. */
export function addressOf(publicKey: Uint8Array): string {
  const coordinates = Point.fromBytes(publicKey).toBytes(false).subarray(1);
  return `0x${Buffer.from(keccak_256(coordinates).subarray(12)).toString("hex")}`;
}

/** The digest that a wallet signs for a message of text (EIP-191, version 0x45, "personal_sign"). */
export function textDigest(text: string): Uint8Array {
  const message = Buffer.from(text, "utf8");
  const prefix = Buffer.from(`\u0019Ethereum Signed Message:\n${message.length}`, "utf8");
  return keccak_256(Buffer.concat([prefix, message]));
}

/** The address with the letters' case as its checksum (EIP-55), as wallets show it. */
export function checksummed(address: string): string {
  const digits = address.slice(2).toLowerCase();
  const hash = Buffer.from(keccak_256(Buffer.from(digits, "ascii"))).toString("hex");
  const cased = Array.from(digits, (digit, at) =>
    Number.parseInt(hash.charAt(at), 16) >= 8 ? digit.toUpperCase() : digit,
  );
  return `0x${cased.join("")}`;
}

/** Text as Keccak-256, for the types and strings of EIP-712. */
function hashOf(text: string): Uint8Array {
  return keccak_256(Buffer.from(text, "utf8"));
}

/** Functionland's fula-cli (auth_eip712.rs): a domain without chain and contract, so a signature is good on every chain. */
const DOMAIN = keccak_256(
  Buffer.concat([hashOf("EIP712Domain(string name,string version)"), hashOf("Fula Gateway"), hashOf("1")]),
);
const TYPE = hashOf("FulaAuth(address wallet,uint256 iat,uint256 exp)");

/** The digest that a wallet signs to open a session (EIP-712). Times are whole seconds since 1970. */
export function sessionDigest(session: {
  readonly wallet: string;
  readonly iat: number;
  readonly exp: number;
}): Uint8Array {
  const word = (hex: string): Buffer => Buffer.from(hex.padStart(64, "0"), "hex");
  const { wallet, iat, exp } = session;
  const struct = keccak_256(
    Buffer.concat([
      TYPE,
      word(wallet.slice(2).toLowerCase()),
      word(iat.toString(16)),
      word(exp.toString(16)),
    ]),
  );
  return keccak_256(Buffer.concat([Buffer.from([0x19, 0x01]), DOMAIN, struct]));
}
