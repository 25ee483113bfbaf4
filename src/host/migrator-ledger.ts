import type { Client } from "pg";
import type { Migration } from "../model/migration.ts";
import type { LedgerRow, Observation } from "../model/migration-plan.ts";

/**
 * Our own tables. `migrations` is the ledger; `flags_in_use` tells which master works with which flag, for the down
 * files to refuse. Idempotent; call it under the migration lock only.
 */
const BOOTSTRAP = `
  CREATE SCHEMA IF NOT EXISTS fula_node;
  CREATE TABLE IF NOT EXISTS fula_node.migrations (
    version      integer PRIMARY KEY,
    name         text NOT NULL,
    sha256       text NOT NULL,
    origin       text NOT NULL CHECK (origin IN ('applied', 'adopted')),
    state        text NOT NULL CHECK (state IN ('applying', 'applied', 'failed', 'reverted')),
    error        text,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    duration_ms  integer,
    tool_version text NOT NULL
  );
  CREATE TABLE IF NOT EXISTS fula_node.flags_in_use (
    master  text NOT NULL,
    flag    text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (master, flag)
  )`;

/** True once all of our own tables are there. */
export async function hasLedger(client: Client): Promise<boolean> {
  const { rows } = await client.query<{ there: boolean }>(
    `SELECT to_regclass('fula_node.migrations') IS NOT NULL
        AND to_regclass('fula_node.flags_in_use') IS NOT NULL AS there`,
  );
  return rows[0]?.there === true;
}

/** Makes the ledger's tables, in one transaction. */
export async function makeLedger(client: Client): Promise<void> {
  await client.query(BOOTSTRAP);
}

/** The ledger's rows; none where there is no ledger. */
export async function readLedger(client: Client): Promise<readonly LedgerRow[]> {
  const found = await client.query<{ there: boolean }>(
    "SELECT to_regclass('fula_node.migrations') IS NOT NULL AS there",
  );
  if (found.rows[0]?.there !== true) return [];
  const { rows } = await client.query<LedgerRow>(
    `SELECT version, name, sha256, origin, state, error, tool_version AS "toolVersion"
     FROM fula_node.migrations ORDER BY version`,
  );
  return rows;
}

/** What the database itself says about these migrations. Reads only. */
export async function observe(
  client: Client,
  migrations: readonly Migration[],
): Promise<readonly Observation[]> {
  const observed: Observation[] = [];
  for (const { version, parts, recovery } of migrations) {
    const found = await client.query<{ part: string; there: boolean }>(parts);
    const halfDone =
      recovery === null ? null : await client.query({ text: recovery.halfDone, rowMode: "array" });
    observed.push({ version, parts: found.rows, halfDone: halfDone?.rows[0]?.[0] === true });
  }
  return observed;
}

/** Marks a migration as begun, before any of its SQL: committed at once, so that a later run sees it. */
export async function markApplying(client: Client, migration: Migration, toolVersion: string): Promise<void> {
  await client.query(
    `INSERT INTO fula_node.migrations (version, name, sha256, origin, state, tool_version)
     VALUES ($1, $2, $3, 'applied', 'applying', $4)
     ON CONFLICT (version) DO UPDATE SET
       name = excluded.name, sha256 = excluded.sha256, origin = 'applied', state = 'applying', error = NULL,
       started_at = clock_timestamp(), finished_at = NULL, duration_ms = NULL, tool_version = excluded.tool_version`,
    [migration.version, migration.name, migration.sha256, toolVersion],
  );
}

/** Marks a migration as done. For a transactional one, call it inside that transaction. */
export async function markApplied(client: Client, migration: Migration): Promise<void> {
  await finish(client, migration, "applied", null);
}

/** Marks a migration as failed, with a line for a person. */
export async function markFailed(client: Client, migration: Migration, error: string): Promise<void> {
  await finish(client, migration, "failed", error);
}

/** Marks a migration as taken back; call it inside the down file's transaction. */
export async function markReverted(client: Client, migration: Migration): Promise<void> {
  await finish(client, migration, "reverted", null);
}

/**
 * Records a migration whose effect was there already: as `adopted`, or, where a run of ours had begun it, as applied
 * by that one.
 */
export async function markAdopted(client: Client, migration: Migration, toolVersion: string): Promise<void> {
  await client.query(
    `INSERT INTO fula_node.migrations (version, name, sha256, origin, state, finished_at, duration_ms, tool_version)
     VALUES ($1, $2, $3, 'adopted', 'applied', clock_timestamp(), 0, $4)
     ON CONFLICT (version) DO UPDATE SET
       name = excluded.name, sha256 = excluded.sha256, state = 'applied', error = NULL,
       finished_at = clock_timestamp(), duration_ms = 0, tool_version = excluded.tool_version`,
    [migration.version, migration.name, migration.sha256, toolVersion],
  );
}

/** The flags that a master is recorded with, sorted. */
export async function readFlags(client: Client, master: string): Promise<readonly string[]> {
  const sql = "SELECT flag FROM fula_node.flags_in_use WHERE master = $1 ORDER BY flag";
  const { rows } = await client.query<{ flag: string }>(sql, [master]);
  return rows.map(({ flag }) => flag);
}

/** Replaces the set of flags that a master works with. */
export async function replaceFlags(client: Client, master: string, flags: readonly string[]): Promise<void> {
  await client.query(
    `WITH gone AS (
       DELETE FROM fula_node.flags_in_use WHERE master = $1 AND flag <> ALL ($2::text[])
     )
     INSERT INTO fula_node.flags_in_use (master, flag)
     SELECT $1, flag FROM unnest($2::text[]) AS flag
     ON CONFLICT (master, flag) DO UPDATE SET seen_at = now()`,
    [master, [...flags]],
  );
}

async function finish(
  client: Client,
  migration: Migration,
  state: LedgerRow["state"],
  error: string | null,
): Promise<void> {
  await client.query(
    `UPDATE fula_node.migrations SET state = $2, error = $3, finished_at = clock_timestamp(),
       duration_ms = round(extract(epoch FROM clock_timestamp() - started_at) * 1000)
     WHERE version = $1`,
    [migration.version, state, error],
  );
}
