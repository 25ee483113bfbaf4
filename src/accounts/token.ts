import { createHash } from "node:crypto";
import { OperatorError } from "../errors.ts";
import { RULES } from "../settings/rules.ts";
import { apiKeyClaims, nameInToken, openText, sealText, signClaims } from "./api-key.ts";
import { addApiKey, emailOf, liveKeysOf, type UserDeps, userIdOf } from "./users.ts";
import type { Clock } from "../machine/clock.ts";

/** With what API keys are made. */
export interface TokenDeps extends UserDeps {
  readonly clock: Pick<Clock, "now">;
  /** JWT_SECRET: what the gateway checks keys with. */
  readonly jwtSecret: string;
}

/** A new API key. It can't be shown again: the database has its hash, and a copy only ENCRYPTION_KEY opens. */
export interface IssuedToken {
  readonly userId: string;
  readonly token: string;
}

/**
 * Issues an API key that the storage API, the pinning API and the gateway take. With a name there is at most
 * one such key: another run is refused and changes nothing. Throws an OperatorError: `usage` (address or name
 * is none), `settings` (no such account), `drift` (a live key has that name).
 */
export async function issueToken(
  hands: TokenDeps,
  wish: { readonly email: string; readonly name: string | undefined },
): Promise<IssuedToken> {
  const { database, random, clock, encryptionKey, jwtSecret } = hands;
  const { name } = wish;
  const address = emailOf(wish.email);
  const userId = userIdOf(address);
  if (name !== undefined) await checkName(hands, userId, address, name);
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
  const live = await liveKeysOf(database, userId);
  if (live === null) throw noAccount(address);
  const names = live.map((sealed) => nameInToken(openText(sealed, encryptionKey) ?? ""));
  if (!names.includes(name)) return;
  throw new OperatorError({
    exit: "drift",
    what: `${address} has an API key named ${name} already.`,
    why: "A key is shown once, when it is made.",
    remedy: "Use that one, or make another under another name.",
  });
}

function noAccount(address: string): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: `There is no account of ${address}.`,
    remedy: `Make it first: fula-node user create --email ${address}`,
  });
}
