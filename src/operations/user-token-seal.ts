import { createCipheriv, createDecipheriv, createHmac } from "node:crypto";
import type { ApiKeyClaims } from "../model/api-key.ts";

const CIPHER = "aes-256-gcm";
const IV_BYTES = 12;
const TAG_BYTES = 16;

/**
 * Encrypts a text as the database's encrypted columns hold it (functionland/pinning-service, encryptApiKey):
 * base64 of a 12 byte iv, a 16 byte tag and the ciphertext, AES-256-GCM. An iv must never be used twice.
 */
export function sealText(text: string, keyHex: string, ivHex: string): string {
  const iv = Buffer.from(ivHex, "hex");
  const cipher = createCipheriv(CIPHER, Buffer.from(keyHex, "hex"), iv, { authTagLength: TAG_BYTES });
  const body = Buffer.concat([cipher.update(text, "utf8"), cipher.final()]);
  return Buffer.concat([iv, cipher.getAuthTag(), body]).toString("base64");
}

/** The text that was sealed; null where it was sealed with another key, or is no sealed text. */
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

/** The name that a key of ours carries; null where it has none, or is no JWT. Checks no signature. */
export function nameInToken(token: string): string | null {
  try {
    const claims = JSON.parse(
      Buffer.from(token.split(".")[1] ?? "", "base64url").toString("utf8"),
    ) as unknown;
    const name = (claims as { readonly name?: unknown } | null)?.name;
    return typeof name === "string" ? name : null;
  } catch {
    return null;
  }
}
