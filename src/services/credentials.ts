import { createHash, createPublicKey, verify } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import { publicKeyOf } from "../federation/announcement-key.ts";
import { readBearer } from "../accounts/api-key.ts";

/** What comes before the 32 bytes of an ed25519 key in its SPKI form (RFC 8410, section 4). */
const SPKI_PREFIX = Buffer.from("302a300506032b6570032100", "hex");

/** True where the key that a peer id carries signed the text: a proof of the key, and of nothing else. */
export function isSignedBy(peerId: string, text: string, signatureHex: string): boolean {
  const key = publicKeyOf(peerId);
  if (key === null) return false;
  const spki = createPublicKey({ key: Buffer.concat([SPKI_PREFIX, key]), format: "der", type: "spki" });
  return verify(null, Buffer.from(text, "utf8"), spki, Buffer.from(signatureHex, "hex"));
}

/** What the database knows a request's bearer token by: hex sha256. Null where the request has none. */
export function keyHashOf({ authorization }: IncomingHttpHeaders): string | null {
  const token = readBearer(authorization);
  return token === null ? null : createHash("sha256").update(token).digest("hex");
}
