import { setTimeout as wait } from "node:timers/promises";
import type { Client } from "pg";
import { OperatorError } from "../errors.ts";
import type { RunningMigrator } from "../model/migration-plan.ts";

/** The two halves of the advisory lock's key: "fula" in ASCII, and 1 for migrations. */
const LOCK_KEY = [0x66756c61, 1] as const;
const FIRST_WAIT_MS = 20;
const LONGEST_WAIT_MS = 500;
const SAY_SO_AFTER_MS = 1_000;

/**
 * Takes the advisory lock that every runner of this database shares; it goes with the session. Throws `locked`,
 * naming the holder, when it is not free within `waitMs`.
 *
 * It polls: a session blocked inside pg_advisory_lock() keeps a snapshot, and the holder's CREATE INDEX
 * CONCURRENTLY waits for every older snapshot, so the two would wait for each other.
 */
export async function takeMigrationLock(
  client: Client,
  waitMs: number,
  report: (line: string) => void,
): Promise<void> {
  const startedAt = performance.now();
  let pauseMs = FIRST_WAIT_MS;
  let said = false;
  for (;;) {
    const { rows } = await client.query<{ taken: boolean }>(
      "SELECT pg_try_advisory_lock($1::integer, $2::integer) AS taken",
      [...LOCK_KEY],
    );
    if (rows[0]?.taken === true) return;
    const waitedMs = performance.now() - startedAt;
    if (waitedMs >= waitMs) throw lockedOut(await findRunningMigrator(client), waitMs);
    if (!said && waitedMs >= SAY_SO_AFTER_MS) {
      said = true;
      report(`waiting for ${describeRunning(await findRunningMigrator(client))}`);
    }
    await wait(Math.min(pauseMs, waitMs - waitedMs));
    pauseMs = Math.min(pauseMs * 1.5, LONGEST_WAIT_MS);
  }
}

/** Who holds the lock at this moment; null when nobody does. */
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

function lockedOut(running: RunningMigrator | null, waitMs: number): OperatorError {
  return new OperatorError({
    exit: "locked",
    what: `The database is being migrated by ${describeRunning(running)}.`,
    why: `Its lock was not free within ${Math.round(waitMs / 1000)} s.`,
    remedy:
      "Wait for it to end, then run again. If that runner is dead, PostgreSQL drops its session and the lock by itself; " +
      `\`SELECT pg_terminate_backend(${running?.pid ?? "PID"})\` ends a session that hangs.`,
  });
}
