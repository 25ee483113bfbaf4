import { getPublicKey, hashes, Point, sign, utils, verify } from "@noble/ed25519";
import { createHash, createPrivateKey, createPublicKey, type KeyObject } from "node:crypto";
import { lstat, readFile } from "node:fs/promises";
import { OperatorError } from "../errors.ts";

/** Looks at ed25519 keys as PEM text. */
export interface SigningReader {
  /** The id and the public half of a private key; throws an OperatorError (`settings`) for anything else. */
  publicKey(pem: string, path: string): { readonly id: string; readonly publicPem: string };
}

/** Makes them, too. */
export interface Signing extends SigningReader {
  /** A new ed25519 private key as PKCS8 PEM. */
  generate(): string;
}

// Everything that signs or verifies imports this file: @noble/ed25519 has no synchronous SHA-512 of its own.
hashes.sha512 = (message) => new Uint8Array(createHash("sha512").update(message).digest());

const KEY_BYTES = 32;
const SIGNATURE_BYTES = 64;

/** Checks signatures made with one ed25519 key. */
export interface VerifyingKey {
  /** First 16 hex characters of the sha256 of the public key's SPKI DER. */
  readonly id: string;
  /** SPKI PEM, as `openssl pkey -pubout` prints it. */
  readonly publicPem: string;
  /** See createVerifier. */
  verify(bytes: Uint8Array, signature: Uint8Array): boolean;
}

/** Signs, too. */
export interface SigningKey extends VerifyingKey {
  /** Raw 64-byte ed25519, what `openssl pkeyutl -sign -rawin` makes. */
  sign(bytes: Uint8Array): Uint8Array;
}

/** Signs with the 32-byte seed of an ed25519 key (RFC 8032, section 5.1.6). */
export function createSigner(seed: Uint8Array): {
  readonly publicKey: Uint8Array;
  readonly sign: (bytes: Uint8Array) => Uint8Array;
} {
  return { publicKey: getPublicKey(seed), sign: (bytes) => sign(bytes, seed) };
}

/**
 * Verifies signatures of one public key (32 bytes). Strict (RFC 8032, section 5.1.7): S below the group's order,
 * points in their one encoding, and a key in the prime-order group. Such a key excludes small orders, and the mixed
 * orders on which verifiers disagree. False for whatever is malformed; never throws.
 */
export function createVerifier(publicKey: Uint8Array): VerifyingKey["verify"] {
  let isPrimeOrder: boolean | null = null;
  return (bytes, signature) => {
    if (signature.length !== SIGNATURE_BYTES || publicKey.length !== KEY_BYTES) return false;
    if (!verify(signature, bytes, publicKey, { zip215: false })) return false;
    isPrimeOrder ??= Point.fromBytes(publicKey).isTorsionFree();
    return isPrimeOrder;
  };
}

/** A new ed25519 key as PKCS8 PEM, the form that `openssl genpkey -algorithm ed25519` writes; keep it 0600. */
export function generateSigningKeyPem(): string {
  const seed = utils.randomSecretKey();
  const key = { kty: "OKP", crv: "Ed25519", d: base64url(seed), x: base64url(getPublicKey(seed)) };
  return createPrivateKey({ key, format: "jwk" }).export({ type: "pkcs8", format: "pem" }).toString();
}

/** Reads a PKCS8 PEM. Throws an OperatorError (settings) where it is no ed25519 private key; nothing of the key is quoted. */
export function parseSigningKey(pem: string, path: string): SigningKey {
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch {
    throw notAKey(path, "it is no private key in PEM form (an encrypted one can't be used by cron)");
  }
  if (key.asymmetricKeyType !== "ed25519") throw notAKey(path, `it is a ${key.asymmetricKeyType} key`);
  const seed = rawPart(key, "d");
  return { ...verifyingKey(createPublicKey(key)), sign: (bytes) => sign(bytes, seed) };
}

/** Reads a public key, or the public half of a private one, from PEM. Throws an OperatorError (settings). */
export function parseVerifyingKey(pem: string, path: string): VerifyingKey {
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch {
    throw notAKey(path, "it is no key in PEM form");
  }
  if (key.asymmetricKeyType !== "ed25519") throw notAKey(path, `it is a ${key.asymmetricKeyType} key`);
  return verifyingKey(key);
}

/** What has to be known of a key's file; a FileStat has it all. */
export interface KeyFileStat {
  readonly kind: "file" | "directory" | "symlink" | "other";
  /** Permission bits only. */
  readonly mode: number;
  readonly uid: number;
}

/** Why a private key's file may not be used as it lies there, in a sentence; null where it may. */
export function keyFileFault(stat: KeyFileStat, selfUid: number): string | null {
  if (stat.kind !== "file") return `it is a ${stat.kind}, not a file`;
  if (stat.uid !== selfUid) return `it belongs to user ${stat.uid}, not to user ${selfUid}`;
  if ((stat.mode & 0o077) === 0) return null;
  return `others may read or write it (mode ${stat.mode.toString(8).padStart(4, "0")})`;
}

/**
 * Reads the signing key of a box. Throws an OperatorError (settings) where there is none, where it is
 * of another kind, or where others may read it: whoever reads it can sign a false pinset.
 */
export async function readSigningKey(path: string): Promise<SigningKey> {
  const stat = await lstat(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return null;
    throw notAKey(path, "it can't be looked at", cause);
  });
  if (stat === null) {
    throw new OperatorError({
      exit: "settings",
      what: `There is no snapshot key at ${path}.`,
      remedy: "Run the installer again: it makes one. To keep an old key, put its PEM there with mode 0600.",
    });
  }
  const kind = stat.isFile() ? "file" : stat.isSymbolicLink() ? "symlink" : "other";
  const fault = keyFileFault({ kind, mode: stat.mode & 0o7777, uid: stat.uid }, process.getuid?.() ?? 0);
  if (fault !== null) {
    throw new OperatorError({
      exit: "settings",
      what: `The snapshot key ${path} is refused: ${fault}.`,
      why: "Whoever can read it can sign a false pinset.",
      remedy: `chmod 600 ${path} (and make a new key if somebody may have read it).`,
    });
  }
  return parseSigningKey(await readFile(path, "utf8"), path);
}

/**
 * Reads the key that signatures are checked with: the first of these files that exists, public or private.
 * Throws an OperatorError (settings) where there is none, where it is of another kind, or where others
 * could have put their own in its place (or, of a private one, could read it).
 */
export async function readVerifyingKey(paths: readonly string[]): Promise<VerifyingKey> {
  for (const path of paths) {
    const stat = await lstat(path).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === "ENOENT") return null;
      throw notAKey(path, "it can't be looked at", cause);
    });
    if (stat === null) continue;
    const pem = await readFile(path, "utf8").catch((cause: unknown) => {
      throw notAKey(path, "it can't be read", cause);
    });
    if (pem.includes("PRIVATE KEY")) return readSigningKey(path);
    if (stat.isFile() && (stat.mode & 0o022) !== 0) {
      throw new OperatorError({
        exit: "settings",
        what: `The key ${path} is refused: others may write it (mode ${(stat.mode & 0o7777).toString(8).padStart(4, "0")}).`,
        why: "Whoever can replace it can pass a false pinset off as genuine.",
        remedy: `Compare it with a copy that you kept elsewhere, then: chmod 644 ${path}`,
      });
    }
    return parseVerifyingKey(pem, path);
  }
  throw new OperatorError({
    exit: "settings",
    what: `There is no key to check signatures with: ${paths.join(" and ")} ${paths.length > 1 ? "are" : "is"} missing.`,
    remedy: "Give the public key of the master that made the snapshot with --key FILE (PEM).",
  });
}

function verifyingKey(key: KeyObject): VerifyingKey {
  const der = key.export({ type: "spki", format: "der" });
  return {
    id: createHash("sha256").update(der).digest("hex").slice(0, 16),
    publicPem: key.export({ type: "spki", format: "pem" }).toString(),
    verify: createVerifier(rawPart(key, "x")),
  };
}

/** The seed (`d`) or the public key (`x`) of an ed25519 key (RFC 8037, section 2). */
function rawPart(key: KeyObject, part: "d" | "x"): Uint8Array {
  return new Uint8Array(Buffer.from(key.export({ format: "jwk" })[part] ?? "", "base64url"));
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64url");
}

function notAKey(path: string, why: string, cause?: unknown): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: `${path} can't be used as the snapshot key: ${why}.`,
    remedy: "It has to be an ed25519 key as `openssl genpkey -algorithm ed25519` writes it.",
    cause,
  });
}
