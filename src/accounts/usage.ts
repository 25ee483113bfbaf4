import type { PostgresPool } from "../database/postgres.ts";
import type { AccountUsage } from "../settings/quota.ts";

type Database = Pick<PostgresPool, "query">;

const TIMEOUT_MS = 10_000;

/**
 * The usage and balance of a key's account. Null if no active key has that hash. The key's last use is recorded at
 * most once in five minutes, and a locked row is skipped: ingest nodes call this for each of their clients.
 */
export async function usageOfKey(database: Database, keyHash: string): Promise<AccountUsage | null> {
  const [row] = await database.query<UsageRow>(USAGE, [keyHash], { timeoutMs: TIMEOUT_MS });
  if (row === undefined) return null;
  return {
    storageBytes: Number(row.storage_bytes),
    balanceFula: row.balance_fula ?? 0,
    isSuspended: row.is_suspended === 1,
  };
}

interface UsageRow extends Record<string, unknown> {
  /** A numeric, which the driver returns as text. */
  readonly storage_bytes: string;
  readonly balance_fula: number | null;
  readonly is_suspended: number | null;
}

/** Rows older than upstream's migration 011 only have the account's e-mail address. */
const USAGE = `
  WITH key AS (
    SELECT id, last_used_at, coalesce(user_id, encode(sha256(convert_to(lower(user_email), 'UTF8')), 'hex')) AS account
    FROM api_keys WHERE key_hash = $1 AND is_deleted = 0
  ), noted AS (
    UPDATE api_keys SET last_used_at = now() WHERE id IN (
      SELECT a.id FROM api_keys a JOIN key ON key.id = a.id
      WHERE a.last_used_at IS NULL OR a.last_used_at < now() - interval '5 minutes'
      FOR UPDATE OF a SKIP LOCKED)
  )
  SELECT (SELECT coalesce(sum(size), 0) FROM pins WHERE user_id = key.account AND status <> 'deleted') AS storage_bytes,
    c.balance_fula, c.is_suspended
  FROM key LEFT JOIN user_credits c ON c.user_id = key.account`;

/** True if an active key has that hash. */
export async function isActiveKey(database: Database, keyHash: string): Promise<boolean> {
  const rows = await database.query(
    "SELECT id FROM api_keys WHERE key_hash = $1 AND is_deleted = 0",
    [keyHash],
    {
      timeoutMs: TIMEOUT_MS,
    },
  );
  return rows.length > 0;
}
