import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { splitStatements } from "../../src/database/migration-file.ts";
import { runPlainly, SHIPPED } from "./migrations.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

/** The number of the last migration that the bash installer applied. */
export type UpstreamVersion = 12 | 17 | 18 | 20;

/**
 * Fills an empty database like the bash installer and a running webui at that version: the tables without our ledger, the
 * two tables that webui creates itself, and rows with missing values as real ones have.
 */
export async function makeUpstreamDatabase(target: PostgresTarget, version: UpstreamVersion): Promise<void> {
  await runPlainly(target, await upstreamStatements(version));
}

/** The same as SQL statements, for a database that only psql can reach. They must not run in one transaction. */
export async function upstreamStatements(version: UpstreamVersion): Promise<readonly string[]> {
  return [
    ...(await statementsOf("001_schema.sql")),
    ...WEBUI_TABLES,
    ...ROWS,
    ...(version < 17 ? UNDO_13_TO_17 : []),
    ...(version >= 18 ? await statementsOf("018_deduction_idempotency.sql") : []),
    ...(version >= 20 ? await statementsOf("019_user_wallets_nullable_address.sql") : []),
    ...(version >= 20 ? await statementsOf("020_bucket_roots.sql") : []),
  ];
}

async function statementsOf(file: string): Promise<readonly string[]> {
  return splitStatements(await readFile(join(SHIPPED, file), "utf8")).map(({ text }) => text);
}

const WEBUI_TABLES = [
  `CREATE TABLE share_manifests (
    share_id text PRIMARY KEY, bucket text, path_scope text, token_json text, files jsonb,
    share_mode text DEFAULT 'temporal', created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(),
    expires_at timestamptz, encrypted_manifest text
  )`,
  `CREATE TABLE collab_manifests (
    group_id text PRIMARY KEY, manifest_data jsonb, encrypted_manifest text, updated_at timestamptz DEFAULT now(),
    creator_id varchar(64)
  )`,
];

const ROWS = [
  "INSERT INTO webui_users (user_id, encrypted_email) VALUES (repeat('a', 64), 'sealed')",
  "INSERT INTO users (username, password_hash) VALUES ('old@example.org', 'x')",
  "INSERT INTO api_keys (user_id, key_hash) VALUES (repeat('a', 64), repeat('b', 64))",
  "INSERT INTO pins (requestid, cid, status, size, user_id) VALUES ('r1', 'bafy1', 'pinned', 42, repeat('a', 64))",
  "INSERT INTO user_credits (user_id, balance_fula) VALUES (repeat('a', 64), 12.5)",
  `INSERT INTO credit_history (user_id, tx_type, amount_fula, balance_after, reference_id) VALUES
    (repeat('a', 64), 'hourly_deduction', -1, 9, '2026-05-01T10:00:00.001Z'),
    (repeat('a', 64), 'hourly_deduction', -1, 8, 'hour:2026-06-12T14'),
    (NULL, 'hourly_deduction', -1, 8, 'hour:2026-06-12T14'),
    (NULL, 'hourly_deduction', -1, 8, 'hour:2026-06-12T14'),
    (repeat('a', 64), 'hourly_deduction', -1, 8, NULL),
    (repeat('a', 64), 'hourly_deduction', -1, 8, NULL)`,
  "INSERT INTO user_wallets (user_id, wallet_address, chain_id) VALUES (repeat('a', 64), '0xabc', 8453)",
  "INSERT INTO share_manifests (share_id, bucket, files) VALUES ('s1', 'b', '[]')",
];

const UNDO_13_TO_17 = [
  "DROP TABLE referral_bonuses",
  "DROP TABLE blocked_cids",
  "ALTER TABLE user_credits DROP COLUMN total_bonus_received_fula",
  "DROP INDEX idx_referrals_referred_id_unique",
  "DROP INDEX idx_user_credits_user_id_unique",
  "DELETE FROM api_keys",
  "ALTER TABLE api_keys DROP COLUMN key_hash",
  "ALTER TABLE api_keys ALTER COLUMN key_id SET NOT NULL",
  "ALTER TABLE credit_history DROP CONSTRAINT credit_history_tx_type_check",
  `ALTER TABLE credit_history ADD CONSTRAINT credit_history_tx_type_check
    CHECK (tx_type IN ('deposit', 'hourly_deduction', 'adjustment'))`,
];
