import { createHash } from "node:crypto";
import { OperatorError } from "../errors.ts";
import type { Clock } from "../machine/clock.ts";
import { RULES } from "../settings/rules.ts";
import { userIdOf } from "./account-id.ts";
import { apiKeyClaims, isExpired, openText, readClaims, sealText, signClaims } from "./api-key.ts";
import { activeKeysOf, addApiKey, emailOf, revokeApiKeys, type UserDeps } from "./users.ts";

/** What is needed to create API keys. */
export interface TokenDeps extends UserDeps {
  readonly clock: Pick<Clock, "now">;
  /** JWT_SECRET: the gateway checks keys with it. */
  readonly jwtSecret: string;
}

/** A new API key. It is shown only once: the database only has its hash, and a copy encrypted with ENCRYPTION_KEY. */
export interface IssuedToken {
  readonly userId: string;
  readonly token: string;
  /** ISO 8601; null for a key that does not expire. */
  readonly expiresAt: string | null;
}

/** What kind of key to issue. */
export interface TokenRequest {
  readonly email: string;
  readonly name: string | undefined;
  /** True for a key that is only good for uploading. */
  readonly uploadOnly: boolean;
  /** How long it is valid; null: until it is revoked. */
  readonly lifetimeMs: number | null;
}

/**
 * Issues an API key. A full key is accepted by the storage API, the pinning API and the gateway. A key for uploading is
 * accepted only where an ingest asks the storage API if its owner may upload. With a name, an account has at most one such
 * key: a second call fails and changes nothing. Expired keys of the account are revoked. Throws an OperatorError: `usage`
 * (invalid address or name), `settings` (no such account), `drift` (an active key has that name).
 */
export async function issueToken(deps: TokenDeps, request: TokenRequest): Promise<IssuedToken> {
  const { database, random, clock, encryptionKey, jwtSecret } = deps;
  const { name, uploadOnly, lifetimeMs } = request;
  const address = emailOf(request.email);
  const userId = userIdOf(address);
  if (name !== undefined && !RULES.name.holds(name)) throw badName(name);
  const names = await activeNames(deps, userId, address);
  if (name !== undefined && names.includes(name)) throw nameTaken(address, name);
  const claims = apiKeyClaims({
    userId,
    issuedAt: clock.now(),
    randomHex: random.hex(16),
    name,
    uploadOnly,
    lifetimeMs,
  });
  const { exp } = claims;
  const token = signClaims(claims, jwtSecret);
  const added = await addApiKey(database, {
    userId,
    keyHash: createHash("sha256").update(token).digest("hex"),
    encryptedKey: sealText(token, encryptionKey, random.hex(12)),
    uploadOnly,
    expiresAt: exp ?? null,
  });
  if (!added) throw noAccount(address);
  return { userId, token, expiresAt: exp === undefined ? null : new Date(exp * 1_000).toISOString() };
}

/** The names of the account's active keys. Revokes the expired ones: upstream's storage API does not look at that date. */
async function activeNames(
  { database, encryptionKey, clock }: TokenDeps,
  userId: string,
  address: string,
): Promise<readonly string[]> {
  const activeKeys = await activeKeysOf(database, userId);
  if (activeKeys === null) throw noAccount(address);
  const nowMs = clock.now().getTime();
  const read = activeKeys.map((encrypted) => {
    const claims = readClaims(openText(encrypted, encryptionKey) ?? "");
    return {
      encrypted,
      name: claims?.name ?? null,
      expired: claims !== null && isExpired(claims, new Date(nowMs)),
    };
  });
  const expired = read.filter((key) => key.expired).map(({ encrypted }) => encrypted);
  if (expired.length > 0) await revokeApiKeys(database, userId, expired);
  return read.flatMap((key) => (key.expired || key.name === null ? [] : [key.name]));
}

function badName(name: string): OperatorError {
  return new OperatorError({
    exit: "usage",
    what: `--name is ${JSON.stringify(name.slice(0, 80))}; it must be ${RULES.name.requirement}.`,
  });
}

function nameTaken(address: string, name: string): OperatorError {
  return new OperatorError({
    exit: "drift",
    what: `${address} already has an API key named ${name}.`,
    why: "A key is shown only once, when it is created.",
    remedy: "Use that key, or create one with another name.",
  });
}

function noAccount(address: string): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: `There is no account for ${address}.`,
    remedy: `Create it first: fula-node user create --email ${address}`,
  });
}
