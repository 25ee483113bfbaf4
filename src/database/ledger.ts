import { setTimeout as wait } from "node:timers/promises";
import type { Client } from "pg";
import { messageOf, OperatorError } from "../errors.ts";
import { type Migration, namesOf } from "./migration-file.ts";
import {
  brokenLedger,
  type LedgerRow,
  type Observation,
  parseLedger,
  type RunningMigrator,
} from "./migration-plan.ts";
import { databaseErrorOf } from "./session.ts";

/**
 * Our own tables. `migrations` is the ledger; in `flags_in_use` 0.1.0 recorded which master uses which flag, and down
 * files still read it (022 moves its rows to `masters`). Idempotent; run it only while holding the migration lock.
 */
export const LEDGER_SQL = `
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

/** True if all of our own tables exist. */
export async function hasLedger(client: Client): Promise<boolean> {
  const { rows } = await client.query<{ there: boolean }>(
    `SELECT to_regclass('fula_node.migrations') IS NOT NULL
        AND to_regclass('fula_node.flags_in_use') IS NOT NULL AS there`,
  );
  return rows[0]?.there === true;
}

/** When the first of its migrations began; null if there is no ledger, or nothing in it. */
export async function readLedgerSince(client: Client): Promise<Date | null> {
  if (!(await hasLedger(client))) return null;
  const { rows } = await client.query<{ since: Date | null }>(
    "SELECT min(started_at) AS since FROM fula_node.migrations",
  );
  return rows[0]?.since ?? null;
}

/** Creates the ledger's tables, in one transaction. */
export async function createLedger(client: Client): Promise<void> {
  await client.query(LEDGER_SQL);
}

/** The ledger's rows. Empty if there is no ledger. */
export async function readLedger(client: Client): Promise<readonly LedgerRow[]> {
  const found = await client.query<{ there: boolean }>(
    "SELECT to_regclass('fula_node.migrations') IS NOT NULL AS there",
  );
  if (found.rows[0]?.there !== true) return [];
  try {
    const { rows } = await client.query<Record<string, unknown>>(
      `SELECT version, name, sha256, origin, state, error, tool_version AS "toolVersion"
       FROM fula_node.migrations ORDER BY version`,
    );
    return parseLedger(rows);
  } catch (thrown) {
    // 42703: a column is missing.
    if (databaseErrorOf(thrown)?.code !== "42703") throw thrown;
    throw brokenLedger(messageOf(thrown), [], thrown);
  }
}

/** Checks in the database itself which effects of these migrations exist. Reads only. */
export async function observe(
  client: Client,
  migrations: readonly Migration[],
): Promise<readonly Observation[]> {
  return await Promise.all(
    migrations.map(async ({ version, parts, sql, recovery }): Promise<Observation> => {
      const [found, halfDone] = await Promise.all([
        client.query<{ part: string; there: boolean }>(parts),
        recovery === null ? null : client.query({ text: recovery.halfDone, rowMode: "array" }),
      ]);
      const isAbsent = found.rows.every(({ there }) => !there);
      return {
        version,
        parts: found.rows,
        halfDone: halfDone?.rows[0]?.[0] === true,
        taken: isAbsent ? await findTaken(client, namesOf(sql)) : [],
      };
    }),
  );
}

/** The relations in `public` with these names, each with its definition. */
async function findTaken(client: Client, names: readonly string[]): Promise<readonly string[]> {
  const { rows } = await client.query<{ found: string }>(
    `SELECT CASE WHEN c.relkind IN ('i', 'I') THEN pg_get_indexdef(c.oid)
         ELSE format('%s %s', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
           ELSE 'table' END, c.relname) END AS found
     FROM pg_class c WHERE c.relnamespace = to_regnamespace('public') AND c.relname = ANY ($1::text[]) ORDER BY c.relname`,
    [[...names]],
  );
  return rows.map(({ found }) => found);
}

/** Marks a migration as started, before its SQL runs. It is committed immediately, so that a later run sees it. */
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

/** Marks a migration as done. If it runs in a transaction, call this inside that transaction. */
export async function markApplied(client: Client, migration: Migration): Promise<void> {
  await finish(client, migration, "applied", null);
}

/** Marks a migration as failed, with a line for the operator. */
export async function markFailed(client: Client, migration: Migration, error: string): Promise<void> {
  await finish(client, migration, "failed", error);
}

/** Marks a migration as reverted. Call it inside the down file's transaction. */
export async function markReverted(client: Client, migration: Migration): Promise<void> {
  await finish(client, migration, "reverted", null);
}

/**
 * Records a migration whose effect already exists: as `adopted` or, if an earlier run of fula-node started it, as applied
 * by that run.
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

/** The two halves of the advisory lock's key: "fula" in ASCII, and 1 for migrations. */
const LOCK_KEY = [0x66756c61, 1] as const;
const FIRST_WAIT_MS = 20;
const LONGEST_WAIT_MS = 500;
const REPORT_AFTER_MS = 1_000;

/**
 * Takes the advisory lock that all migration runs of this database share. It ends with the session. Throws `locked`,
 * naming the holder, if it is not free within `waitMs`.
 *
 * It polls on purpose: a session blocked in pg_advisory_lock() keeps a snapshot, and the holder's CREATE INDEX
 * CONCURRENTLY waits for every older snapshot. The two sessions would wait for each other.
 */
export async function takeMigrationLock(
  client: Client,
  waitMs: number,
  report: (line: string) => void,
): Promise<void> {
  const startedAt = performance.now();
  let pauseMs = FIRST_WAIT_MS;
  let reported = false;
  for (;;) {
    const { rows } = await client.query<{ taken: boolean }>(
      "SELECT pg_try_advisory_lock($1::integer, $2::integer) AS taken",
      [...LOCK_KEY],
    );
    if (rows[0]?.taken === true) return;
    const waitedMs = performance.now() - startedAt;
    if (waitedMs >= waitMs) throw lockTimeout(await findRunningMigrator(client), waitMs);
    if (!reported && waitedMs >= REPORT_AFTER_MS) {
      reported = true;
      report(`waiting for ${describeRunning(await findRunningMigrator(client))}`);
    }
    await wait(Math.min(pauseMs, waitMs - waitedMs));
    pauseMs = Math.min(pauseMs * 1.5, LONGEST_WAIT_MS);
  }
}

/** The current holder of the lock, or null. */
export async function findRunningMigrator(client: Client): Promise<RunningMigrator | null> {
  const { rows } = await client.query<{ pid: number; application: string; address: string; since: string }>(
    `SELECT l.pid, coalesce(a.application_name, '') AS application,
       coalesce(host(a.client_addr), 'local socket') AS address,
       coalesce(to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), '') AS since
     FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND l.classid = $1::bigint::oid AND l.objid = $2::bigint::oid`,
    [...LOCK_KEY],
  );
  return rows[0] ?? null;
}

function describeRunning(running: RunningMigrator | null): string {
  if (running === null) return "another migration run, which just ended";
  const { pid, application, address, since } = running;
  return `another migration run: session ${pid} ("${application}") from ${address}, since ${since}`;
}

function lockTimeout(running: RunningMigrator | null, waitMs: number): OperatorError {
  return new OperatorError({
    exit: "locked",
    what: `The database is being migrated by ${describeRunning(running)}.`,
    why: `The migration lock was not released within ${Math.round(waitMs / 1000)} s.`,
    remedy:
      "Wait for that run to end, then run again. If its process is dead, PostgreSQL ends its session and releases the lock. " +
      `If the session hangs, end it with \`SELECT pg_terminate_backend(${running?.pid ?? "PID"})\`.`,
  });
}
