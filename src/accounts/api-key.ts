import { createCipheriv, createDecipheriv, createHmac, timingSafeEqual } from "node:crypto";

/** The claims of an API key (functionland/pinning-service, generateJwtApiKey). `name` is our optional addition. */
interface ApiKeyClaims {
  /** The account: hex sha256 of its lower-cased e-mail address. */
  readonly sub: string;
  /** Seconds since 1970. */
  readonly iat: number;
  readonly scope: "storage:read storage:write" | typeof UPLOAD_SCOPE;
  /** A UUID: no two keys are the same. */
  readonly jti: string;
  readonly name?: string;
  /** Seconds since 1970. A full key has one only if the operator asked for it. */
  readonly exp?: number;
}

/**
 * The scope of a key that is only good for uploading blocks. It is neither of the scopes that upstream's gateway requires
 * for reading and writing, so the gateway refuses such a key.
 */
const UPLOAD_SCOPE = "storage:upload";

/**
 * The claims of a new key; `randomHex` is 16 random bytes. It expires after `lifetimeMs`; without that (null) it is valid
 * until it is revoked.
 */
export function apiKeyClaims(from: {
  readonly userId: string;
  readonly issuedAt: Date;
  readonly randomHex: string;
  readonly name: string | undefined;
  readonly uploadOnly: boolean;
  readonly lifetimeMs: number | null;
}): ApiKeyClaims {
  const { userId, issuedAt, randomHex, name, uploadOnly, lifetimeMs } = from;
  const iat = Math.floor(issuedAt.getTime() / 1000);
  return {
    sub: userId,
    iat,
    scope: uploadOnly ? UPLOAD_SCOPE : "storage:read storage:write",
    jti: uuidOf(randomHex),
    ...(name === undefined ? {} : { name }),
    ...(lifetimeMs === null ? {} : { exp: iat + Math.floor(lifetimeMs / 1_000) }),
  };
}

/** The bearer token of an Authorization header; null if there is none, or it can't be a key. */
export function readBearer(header: string | undefined): string | null {
  // RFC 6750, section 2.1; the scheme's name is case-insensitive (RFC 9110, section 11.1).
  return /^bearer +([A-Za-z0-9._~+/-]{1,4096}=*) *$/i.exec(header ?? "")?.[1] ?? null;
}

/** RFC 9562, version 4. */
function uuidOf(randomHex: string): string {
  const variant = ((Number.parseInt(randomHex.charAt(16), 16) & 0x3) | 0x8).toString(16);
  return [
    randomHex.slice(0, 8),
    randomHex.slice(8, 12),
    `4${randomHex.slice(13, 16)}`,
    `${variant}${randomHex.slice(17, 20)}`,
    randomHex.slice(20, 32),
  ].join("-");
}

const CIPHER = "aes-256-gcm";
const IV_BYTES = 12;
const TAG_BYTES = 16;

/**
 * Encrypts a text in the format of the database's encrypted columns (functionland/pinning-service, encryptApiKey):
 * base64 of a 12 byte iv, a 16 byte tag and the ciphertext, AES-256-GCM. An iv must never be used twice.
 */
export function sealText(text: string, keyHex: string, ivHex: string): string {
  const iv = Buffer.from(ivHex, "hex");
  const cipher = createCipheriv(CIPHER, Buffer.from(keyHex, "hex"), iv, { authTagLength: TAG_BYTES });
  const body = Buffer.concat([cipher.update(text, "utf8"), cipher.final()]);
  return Buffer.concat([iv, cipher.getAuthTag(), body]).toString("base64");
}

/** Decrypts a text of sealText. Null if it was encrypted with another key, or is malformed. */
export function openText(sealed: string, keyHex: string): string | null {
  const bytes = Buffer.from(sealed, "base64");
  if (bytes.length < IV_BYTES + TAG_BYTES) return null;
  try {
    const iv = bytes.subarray(0, IV_BYTES);
    const decipher = createDecipheriv(CIPHER, Buffer.from(keyHex, "hex"), iv, { authTagLength: TAG_BYTES });
    decipher.setAuthTag(bytes.subarray(IV_BYTES, IV_BYTES + TAG_BYTES));
    const body = decipher.update(bytes.subarray(IV_BYTES + TAG_BYTES));
    return Buffer.concat([body, decipher.final()]).toString("utf8");
  } catch {
    return null;
  }
}

/** Signs claims as a JWT with HS256 (RFC 7515, RFC 7519). */
export function signClaims(claims: ApiKeyClaims, secret: string): string {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

/** True if signClaims made this token with this secret. */
export function isSignedWith(token: string, secret: string): boolean {
  const end = token.lastIndexOf(".");
  if (end < 0) return false;
  const given = Buffer.from(token.slice(end + 1), "base64url");
  const right = createHmac("sha256", secret).update(token.slice(0, end)).digest();
  return given.length === right.length && timingSafeEqual(given, right);
}

/** What a key says about itself. */
export interface KeyClaims {
  readonly name: string | null;
  /** True if the key is only good for uploading blocks. */
  readonly uploadOnly: boolean;
  /** Seconds since 1970; null if the key does not expire. */
  readonly expiresAt: number | null;
}

/**
 * Reads the claims of an API key. Null for a JWT that is not one of HS256, or whose `exp` is not a number: no service ever
 * issued it. Does not check the signature: trust the claims only if the database has the hash of the whole key.
 */
export function readClaims(token: string): KeyClaims | null {
  const [head = "", body = "", signature, ...more] = token.split(".");
  const header = readPart(head);
  if (header === null || signature === undefined || more.length > 0) return NO_JWT;
  const claims = readPart(body);
  if (header["alg"] !== "HS256" || claims === null || !HS256_SIGNATURE.test(signature)) return null;
  const { name, scope, exp } = claims;
  if (exp !== undefined && (typeof exp !== "number" || !Number.isFinite(exp))) return null;
  return {
    name: typeof name === "string" ? name : null,
    uploadOnly: scope === UPLOAD_SCOPE,
    expiresAt: exp ?? null,
  };
}

/** What a text that is no JWT says about itself: nothing. Upstream's oldest keys are such texts. */
export const NO_JWT: KeyClaims = { name: null, uploadOnly: false, expiresAt: null };

/** True if the text claims to be a wallet token; the letters' case counts. */
export function isWalletToken(token: string): boolean {
  return token.startsWith(WALLET_TOKEN_PREFIX);
}

/** True if the text has the form of a JWT: its first part is a JSON object. */
export function isJwt(token: string): boolean {
  const [head = "", ...more] = token.split(".");
  return more.length > 0 && readPart(head) !== null;
}

/** The beginning of every wallet token (functionland/fula-api, auth_eip712.rs). */
export const WALLET_TOKEN_PREFIX = "fula-eip712.";

/** 32 bytes in base64url. */
const HS256_SIGNATURE = /^[A-Za-z0-9_-]{43}$/;

/** True if the key has expired. */
export function isExpired({ expiresAt }: Pick<KeyClaims, "expiresAt">, now: Date): boolean {
  return expiresAt !== null && expiresAt * 1_000 <= now.getTime();
}

function readPart(text: string): Readonly<Record<string, unknown>> | null {
  if (!/^[A-Za-z0-9_-]+$/.test(text)) return null;
  try {
    const value = JSON.parse(Buffer.from(text, "base64url").toString("utf8")) as unknown;
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Readonly<Record<string, unknown>>)
      : null;
  } catch {
    return null;
  }
}
