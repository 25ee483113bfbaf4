import type { PostgresPool } from "../database/postgres.ts";
import type { AccountUsage } from "../settings/quota.ts";

type Database = Pick<PostgresPool, "query">;

const TIMEOUT_MS = 10_000;

/**
 * The account of an API key. Null if no active key has that hash. The key's last use is recorded at most once in five
 * minutes, and a locked row is skipped: ingest nodes ask for each of their clients.
 */
export async function accountOfKey(database: Database, keyHash: string): Promise<string | null> {
  const [row] = await database.query<{ account: string | null }>(ACCOUNT, [keyHash], {
    timeoutMs: TIMEOUT_MS,
  });
  return row?.account ?? null;
}

/** Rows older than upstream's migration 011 only have the account's e-mail address. */
const ACCOUNT = `
  WITH key AS (
    SELECT id, last_used_at, coalesce(user_id, encode(sha256(convert_to(lower(user_email), 'UTF8')), 'hex')) AS account
    FROM api_keys WHERE key_hash = $1 AND is_deleted = 0
  ), noted AS (
    UPDATE api_keys SET last_used_at = now() WHERE id IN (
      SELECT a.id FROM api_keys a JOIN key ON key.id = a.id
      WHERE a.last_used_at IS NULL OR a.last_used_at < now() - interval '5 minutes'
      FOR UPDATE OF a SKIP LOCKED)
  )
  SELECT account FROM key`;

/** The usage and balance of an account. It takes the same time however many pins the account has (migration 025). */
export async function usageOf(database: Database, account: string): Promise<AccountUsage> {
  const [row] = await database.query<UsageRow>(USAGE, [account], { timeoutMs: TIMEOUT_MS });
  return {
    storageBytes: Number(row?.storage_bytes ?? 0),
    balanceFula: Number(row?.balance ?? 0),
    isSuspended: row?.is_suspended === true,
    isHeld: row?.is_held === true,
  };
}

interface UsageRow extends Record<string, unknown> {
  /** A numeric, which the driver returns as text. */
  readonly storage_bytes: string;
  /** The same. */
  readonly balance: string | null;
  readonly is_suspended: boolean | null;
  readonly is_held: boolean;
}

const USAGE = `
  SELECT (SELECT coalesce(sum(bytes), 0) FROM account_usage WHERE account = $1) AS storage_bytes,
    c.balance, c.suspended AS is_suspended,
    EXISTS (SELECT FROM account_holds WHERE account = $1) AS is_held
  FROM (SELECT 1) AS one LEFT JOIN account_credits c ON c.account = $1`;
