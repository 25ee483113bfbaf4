import type { PostgresPool } from "../database/postgres.ts";
import { OperatorError } from "../errors.ts";
import type { Host } from "../host.ts";
import { readEmail, userIdOf } from "./account-id.ts";
import { sealText } from "./api-key.ts";

/** What is needed to create accounts. */
export interface UserDeps {
  readonly database: Pick<PostgresPool, "query">;
  readonly random: Host["random"];
  /** ENCRYPTION_KEY: 64 hex digits. */
  readonly encryptionKey: string;
}

/** The account of an e-mail address. */
interface Account {
  readonly userId: string;
  /** False if the account already existed; then nothing was changed. */
  readonly created: boolean;
}

/** Creates the account of an e-mail address, or finds it. Throws an OperatorError (`usage`) for an invalid address. */
export async function createUser(
  { database, random, encryptionKey }: UserDeps,
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

/** The address in the form that identifies accounts. Throws an OperatorError (`usage`) for an invalid address. */
export function emailOf(email: string): string {
  const address = readEmail(email);
  if (address !== null) return address;
  throw new OperatorError({
    exit: "usage",
    what: `${JSON.stringify(email.slice(0, 80))} is not an e-mail address.`,
    remedy: "Pass an address, such as --email alice@example.org.",
  });
}

type Database = Pick<PostgresPool, "query">;

/** A new account. It contains no personal data in plain text. */
interface NewAccount {
  /** Lower-case hex sha256 of the lower-cased e-mail address. */
  readonly userId: string;
  readonly encryptedEmail: string;
  /** Stored in place of a password hash, so that no password matches. */
  readonly passwordMark: string;
}

/**
 * Creates an account as upstream's sign-in does: a row in webui_users, and one in users, where the pinning
 * service looks for the pool. False if the account existed; then nothing is changed.
 */
async function createAccount(database: Database, account: NewAccount): Promise<boolean> {
  const rows = await database.query(CREATE, [account.userId, account.encryptedEmail, account.passwordMark]);
  return rows.length > 0;
}

const CREATE = `
  WITH account AS (
    INSERT INTO webui_users (user_id, encrypted_email) VALUES ($1::text, $2)
      ON CONFLICT (user_id) DO NOTHING RETURNING user_id
  ), pinner AS (
    INSERT INTO users (user_id, password_hash, pool_id)
      SELECT user_id, $3, 1 FROM account WHERE NOT EXISTS (SELECT FROM users WHERE user_id = $1::text)
  )
  SELECT user_id FROM account`;

/** A new API key, as the database stores it. */
interface NewApiKey {
  readonly userId: string;
  /** Lower-case hex sha256 of the key. */
  readonly keyHash: string;
  readonly encryptedKey: string;
  /** True for a key that is only good for uploading: the pinning API does not get it. */
  readonly uploadOnly: boolean;
  /** Seconds since 1970; null for a key that does not expire. */
  readonly expiresAt: number | null;
}

/**
 * Registers a key for the storage API (api_keys) and, unless it is only good for uploading, for the pinning API (sessions,
 * with the hash in both of its columns). False if there is no such account; then nothing is written.
 */
export async function addApiKey(database: Database, key: NewApiKey): Promise<boolean> {
  const { userId, keyHash, encryptedKey, uploadOnly, expiresAt } = key;
  const rows = await database.query(ADD_KEY, [userId, keyHash, encryptedKey, !uploadOnly, expiresAt]);
  return rows.length > 0;
}

/** Upstream stores the account's id in the columns that once had an e-mail address or a user name. */
const ADD_KEY = `
  WITH account AS (
    SELECT user_id FROM webui_users WHERE user_id = $1::text
  ), session AS (
    INSERT INTO sessions (session_token, token_hash, user_id, username, expires_at)
      SELECT $2::text, $2::text, user_id, user_id, to_timestamp($5::bigint) FROM account WHERE $4::boolean
  )
  INSERT INTO api_keys (key_hash, user_id, user_email, encrypted_key)
    SELECT $2::text, user_id, user_id, $3 FROM account RETURNING id`;

/** Revokes keys, given as their encrypted copies, so that upstream's services refuse them too. */
export async function revokeApiKeys(
  database: Database,
  userId: string,
  encryptedKeys: readonly string[],
): Promise<void> {
  await database.query(
    "UPDATE api_keys SET is_deleted = 1 WHERE user_id = $1 AND encrypted_key = ANY($2::text[])",
    [userId, encryptedKeys],
  );
}

/** Revokes the key with that hash: in api_keys, where the storage API looks, and in sessions, where the pinning API looks. */
export async function revokeKey(database: Database, keyHash: string): Promise<void> {
  await database.query(
    `WITH revoked AS (
       UPDATE api_keys SET is_deleted = 1, deleted_at = now() WHERE key_hash = $1 AND is_deleted = 0
     )
     UPDATE sessions SET expires_at = now() WHERE token_hash = $1 AND (expires_at IS NULL OR expires_at > now())`,
    [keyHash],
  );
}

/** The encrypted copies of an account's active keys (not revoked). Null if there is no such account. */
export async function activeKeysOf(database: Database, userId: string): Promise<readonly string[] | null> {
  const rows = await database.query<{ encrypted_key: string | null }>(ACTIVE_KEYS, [userId]);
  return rows.length === 0 ? null : rows.flatMap(({ encrypted_key }) => encrypted_key ?? []);
}

const ACTIVE_KEYS = `
  SELECT k.encrypted_key FROM webui_users u
  LEFT JOIN api_keys k ON k.user_id = u.user_id AND k.is_deleted = 0
  WHERE u.user_id = $1`;
