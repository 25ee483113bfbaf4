import { getPublicKey, hashes, Point, sign, utils } from "@noble/ed25519";
import { createHash, createPrivateKey, createPublicKey, type KeyObject, verify } from "node:crypto";
import { lstat, readFile, stat } from "node:fs/promises";
import { OperatorError } from "../errors.ts";
import { nameOfKind } from "./file-reader.ts";

/** Reads ed25519 keys in PEM form. */
export interface SigningReader {
  /** The id and the public key of a private key. Throws an OperatorError (`settings`) for anything else. */
  publicKey(pem: string, path: string): Promise<{ readonly id: string; readonly publicPem: string }>;
}

/** Can also generate keys. */
export interface Signing extends SigningReader {
  /** A new ed25519 private key as PKCS8 PEM. */
  generate(): Promise<string>;
  /** Signs a text with a private key; the signature as hex. Throws an OperatorError (`settings`) if it is no such key. */
  sign(pem: string, path: string, text: string): Promise<string>;
}

// @noble/ed25519 has no synchronous SHA-512, so set one here. All code that signs or verifies imports this file.
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

/** Can also sign. */
export interface SigningKey extends VerifyingKey {
  /** Returns a raw 64-byte ed25519 signature, as `openssl pkeyutl -sign -rawin` does. */
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
 * Verifies signatures of one public key (32 bytes). Strict (RFC 8032, section 5.1.7): S must be below the group's
 * order, points must have their canonical encoding, and the key must be in the prime-order group. The last rule excludes
 * keys of small order, and of mixed order, on which verifiers disagree. False for malformed input; never throws.
 * @noble/ed25519 judges the key; Node's own code, which looks at no such thing, then checks a signature a hundred times faster.
 */
export function createVerifier(publicKey: Uint8Array): VerifyingKey["verify"] {
  let key: KeyObject | null | undefined;
  return (bytes, signature) => {
    if (signature.length !== SIGNATURE_BYTES) return false;
    key ??= importStrictly(publicKey);
    return key !== null && verify(null, bytes, key, signature);
  };
}

/** A public key in the prime-order group, in its canonical encoding; null for anything else. */
function importStrictly(publicKey: Uint8Array): KeyObject | null {
  if (publicKey.length !== KEY_BYTES) return null;
  try {
    const point = Point.fromBytes(publicKey);
    // The neutral element is in the group too.
    if (point.isSmallOrder() || !point.isTorsionFree()) return null;
  } catch {
    return null;
  }
  return createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x: base64url(publicKey) }, format: "jwk" });
}

/** A new ed25519 key as PKCS8 PEM, the form that `openssl genpkey -algorithm ed25519` writes; keep it 0600. */
export function generateSigningKeyPem(): string {
  const seed = utils.randomSecretKey();
  const key = { kty: "OKP", crv: "Ed25519", d: base64url(seed), x: base64url(getPublicKey(seed)) };
  return createPrivateKey({ key, format: "jwk" }).export({ type: "pkcs8", format: "pem" }).toString();
}

/** Parses a PKCS8 PEM. Throws an OperatorError (settings) if it is not an ed25519 private key. The error contains no part of the key. */
export function parseSigningKey(pem: string, path: string): SigningKey {
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch {
    throw notAKey(path, "it is not a private key in PEM form (cron can't use an encrypted key)");
  }
  if (key.asymmetricKeyType !== "ed25519") throw notAKey(path, `it is a ${key.asymmetricKeyType} key`);
  const seed = rawPart(key, "d");
  return { ...verifyingKey(createPublicKey(key)), sign: (bytes) => sign(bytes, seed) };
}

/** Parses a public key, or the public half of a private key, from PEM. Throws an OperatorError (settings). */
export function parseVerifyingKey(pem: string, path: string): VerifyingKey {
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch {
    throw notAKey(path, "it is not a key in PEM form");
  }
  if (key.asymmetricKeyType !== "ed25519") throw notAKey(path, `it is a ${key.asymmetricKeyType} key`);
  return verifyingKey(key);
}

/** The data about a key file that is checked. A FileStat has all of it. */
export interface KeyFileStat {
  readonly kind: "file" | "directory" | "symlink" | "other";
  /** Permission bits only. */
  readonly mode: number;
  readonly uid: number;
}

/** Checks a private key's file. Returns the problem as half a sentence, or null if the file is safe to use. */
export function keyFileFault(found: KeyFileStat, selfUid: number): string | null {
  if (found.kind !== "file") return `it is a ${nameOfKind(found.kind)}, not a file`;
  if (found.uid !== selfUid) return `it belongs to user ${found.uid}, not to user ${selfUid}`;
  if ((found.mode & 0o077) === 0) return null;
  return `other users can read or write it (mode ${found.mode.toString(8).padStart(4, "0")})`;
}

/**
 * Reads the signing key of this machine. Throws an OperatorError (settings) if there is none, if it is of another
 * type, or if other users can read it: anyone who can read it can sign a false pinset.
 */
export async function readSigningKey(path: string): Promise<SigningKey> {
  const found = await lstat(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return null;
    throw notAKey(path, "it can't be inspected", cause);
  });
  if (found === null) {
    throw new OperatorError({
      exit: "settings",
      what: `There is no snapshot key at ${path}.`,
      remedy:
        "Run join-as-master again: it creates one. To keep an old key, copy its PEM to that path with mode 0600.",
    });
  }
  const kind = found.isFile() ? "file" : found.isSymbolicLink() ? "symlink" : "other";
  const fault = keyFileFault({ kind, mode: found.mode & 0o7777, uid: found.uid }, process.getuid?.() ?? 0);
  if (fault !== null) {
    throw new OperatorError({
      exit: "settings",
      what: `The snapshot key ${path} is not safe to use: ${fault}.`,
      why: "Anyone who can read it can sign a false pinset.",
      remedy: `Run chmod 600 ${path}. If somebody may have read the key, replace it with a new one.`,
    });
  }
  return parseSigningKey(await readFile(path, "utf8"), path);
}

/**
 * Reads the key for checking signatures: the first of these files that exists, public or private. Throws an
 * OperatorError (settings) if there is none, if it is of another type, or if other users could have replaced it (or,
 * for a private key, could read it).
 */
export async function readVerifyingKey(paths: readonly string[]): Promise<VerifyingKey> {
  for (const path of paths) {
    const found = await lstat(path).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === "ENOENT") return null;
      throw notAKey(path, "it can't be inspected", cause);
    });
    if (found === null) continue;
    const pem = await readFile(path, "utf8").catch((cause: unknown) => {
      throw notAKey(path, "it can't be read", cause);
    });
    if (pem.includes("PRIVATE KEY")) return readSigningKey(path);
    // A public key may be a symbolic link; what counts is who can write the file behind it.
    const { mode } = await stat(path);
    if ((mode & 0o022) !== 0) {
      throw new OperatorError({
        exit: "settings",
        what: `The key ${path} is not safe to use: other users can write it (mode ${(mode & 0o7777).toString(8).padStart(4, "0")}).`,
        why: "Anyone who can replace it can make a false pinset look genuine.",
        remedy: `Compare it with a copy that is stored elsewhere, then run chmod 644 ${path}.`,
      });
    }
    return parseVerifyingKey(pem, path);
  }
  throw new OperatorError({
    exit: "settings",
    what: `There is no key to check signatures with: ${paths.join(" and ")} ${paths.length > 1 ? "are" : "is"} missing.`,
    remedy: "Pass the public key of the master that created the snapshot: --key FILE (PEM).",
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
    remedy: "It must be an ed25519 key in PEM form, as created by `openssl genpkey -algorithm ed25519`.",
    cause,
  });
}
