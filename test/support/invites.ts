import { randomBytes } from "node:crypto";
import {
  formatToken,
  type Invite,
  invitePayload,
  type Registration,
  registrationText,
} from "../../src/federation/invite.ts";
import { generateSigningKeyPem, parseSigningKey, type SigningKey } from "../../src/machine/signing.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { sql } from "./postgres-server.ts";

/** A new signing key of a master. */
export function makeSigningKey(): SigningKey {
  return parseSigningKey(generateSigningKeyPem(), "key");
}

/** The registration in an invite of that key. */
export function registrationOf(
  key: SigningKey,
  pool = "pool",
  id = randomBytes(16).toString("hex"),
): Registration {
  const text = Buffer.from(registrationText({ id, pool }), "utf8");
  return { id, signature: Buffer.from(key.sign(text)).toString("base64url") };
}

/** Signs a payload and makes a token of it, whatever is in it. */
export function signPayload(key: SigningKey, payload: string, version: 1 | 2 | 3): string {
  const bytes = Buffer.from(payload, "utf8");
  const signature = Buffer.from(key.sign(bytes)).toString("base64url");
  return formatToken(
    {
      registration: version === 1 ? null : registrationOf(key),
      storageApiCa: version === 3 ? "a CA" : null,
    },
    bytes.toString("base64url"),
    signature,
  );
}

/** The token of an invite. */
export function tokenOf(key: SigningKey, invite: Omit<Invite, "publicPem">): string {
  const payload = invitePayload({ ...invite, publicPem: key.publicPem });
  return signPayload(key, payload, invite.registration === null ? 1 : invite.storageApiCa === null ? 2 : 3);
}

/** Stores an invite as `invite create` does, and returns what its node shows: `ID.SIGNATURE`. */
export async function storeInvite(
  target: PostgresTarget,
  options: {
    readonly key?: SigningKey;
    readonly pool?: string;
    readonly name?: string | null;
    readonly expiresInSeconds?: number;
  } = {},
): Promise<Registration & { readonly shown: string }> {
  const { key = makeSigningKey(), pool = "pool-a", name = null, expiresInSeconds = 3_600 } = options;
  const registration = registrationOf(key, pool);
  await sql(
    target,
    `INSERT INTO invites (pool, id, name, verifying_key, issued_at, expires_at)
     VALUES ($1, $2, $3, $4, now(), now() + $5 * interval '1 second')`,
    [pool, registration.id, name, key.publicPem, expiresInSeconds],
  );
  return { ...registration, shown: `${registration.id}.${registration.signature}` };
}
