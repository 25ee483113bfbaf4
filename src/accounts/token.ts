import { createHash } from "node:crypto";
import { OperatorError } from "../errors.ts";
import type { Clock } from "../machine/clock.ts";
import { RULES } from "../settings/rules.ts";
import { apiKeyClaims, nameInToken, openText, sealText, signClaims } from "./api-key.ts";
import { activeKeysOf, addApiKey, emailOf, type UserDeps, userIdOf } from "./users.ts";

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
}

/**
 * Issues an API key that the storage API, the pinning API and the gateway accept. With a name, an account has at most
 * one such key: a second call fails and changes nothing. Throws an OperatorError: `usage` (invalid address or
 * name), `settings` (no such account), `drift` (an active key has that name).
 */
export async function issueToken(
  deps: TokenDeps,
  request: { readonly email: string; readonly name: string | undefined },
): Promise<IssuedToken> {
  const { database, random, clock, encryptionKey, jwtSecret } = deps;
  const { name } = request;
  const address = emailOf(request.email);
  const userId = userIdOf(address);
  if (name !== undefined) await checkName(deps, userId, address, name);
  const claims = apiKeyClaims({ userId, issuedAt: clock.now(), randomHex: random.hex(16), name });
  const token = signClaims(claims, jwtSecret);
  const added = await addApiKey(database, {
    userId,
    keyHash: createHash("sha256").update(token).digest("hex"),
    encryptedKey: sealText(token, encryptionKey, random.hex(12)),
  });
  if (!added) throw noAccount(address);
  return { userId, token };
}

async function checkName(
  { database, encryptionKey }: TokenDeps,
  userId: string,
  address: string,
  name: string,
): Promise<void> {
  if (!RULES.name.holds(name)) {
    throw new OperatorError({
      exit: "usage",
      what: `--name is ${JSON.stringify(name.slice(0, 80))}; it must be ${RULES.name.requirement}.`,
    });
  }
  const activeKeys = await activeKeysOf(database, userId);
  if (activeKeys === null) throw noAccount(address);
  const names = activeKeys.map((encrypted) => nameInToken(openText(encrypted, encryptionKey) ?? ""));
  if (!names.includes(name)) return;
  throw new OperatorError({
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
