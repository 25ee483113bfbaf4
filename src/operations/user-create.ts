import { createHash } from "node:crypto";
import { createAccount } from "../arbiters/users.ts";
import { OperatorError } from "../errors.ts";
import type { Host } from "../host/host.ts";
import type { PostgresPool } from "../database/pool.ts";
import { readEmail } from "../model/api-key.ts";
import { sealText } from "./user-token-seal.ts";

/** With what accounts are made. */
export interface UserHands {
  readonly database: Pick<PostgresPool, "query">;
  readonly random: Host["random"];
  /** ENCRYPTION_KEY: 64 hex digits. */
  readonly encryptionKey: string;
}

/** The account of an e-mail address. */
export interface Account {
  readonly userId: string;
  /** False where it was there already; then nothing was changed. */
  readonly created: boolean;
}

/** Makes the account of an e-mail address, or finds it. Throws an OperatorError (`usage`) where it is none. */
export async function createUser(
  { database, random, encryptionKey }: UserHands,
  email: string,
): Promise<Account> {
  const address = emailOf(email);
  const userId = userIdOf(address);
  const created = await createAccount(database, {
    userId,
    encryptedEmail: sealText(address, encryptionKey, random.hex(12)),
    passwordMark: `fula-node-user-${random.hex(16)}`,
  });
  return { userId, created };
}

/** The address in the form that accounts are known by. Throws an OperatorError (`usage`) for anything else. */
export function emailOf(email: string): string {
  const address = readEmail(email);
  if (address !== null) return address;
  throw new OperatorError({
    exit: "usage",
    what: `${JSON.stringify(email.slice(0, 80))} is no e-mail address.`,
    remedy: "Give one with --email, such as --email alice@example.org.",
  });
}

/** An account's id: lower-case hex sha256 of its address (functionland/pinning-service, emailToUserId). */
export function userIdOf(address: string): string {
  return createHash("sha256").update(address).digest("hex");
}
