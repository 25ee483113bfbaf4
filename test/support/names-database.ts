import { onTestFinished } from "vitest";
import { openPostgresPool, type PostgresPool } from "../../src/database/postgres.ts";
import type { Admission } from "../../src/federation/registry.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { listen, migratorOf, until } from "./migrations.ts";
import { inSession, sql } from "./postgres-server.ts";

/** Anybody may register a name. */
export const OPEN: Admission = { isOpen: true, inviteId: null };

/** Migrates a database to the newest schema, for templates. */
export async function migrate(target: PostgresTarget): Promise<void> {
  await migratorOf().up(target, listen());
}

/** A service's pool. The caller closes it. */
export function openPool(target: PostgresTarget, maxConnections: number): PostgresPool {
  const settings = { ...target, maxConnections, idleTimeoutMs: 30_000, connectTimeoutMs: 5_000 };
  return openPostgresPool(settings, { applicationName: RACERS, log: () => {} });
}

/** A pool with up to twenty connections. It is closed after the test. */
export function poolOf(target: PostgresTarget): PostgresPool {
  const pool = openPool(target, 24);
  onTestFinished(() => pool.close());
  return pool;
}

const RACERS = "fula-node racing";

/**
 * Makes several statements really race: a transaction locks what all of them need. When all have begun and wait, each with
 * its own snapshot, that transaction ends. Throws if not all of them come to wait.
 */
export async function race<Result>(
  target: PostgresTarget,
  holding: string,
  racers: readonly (() => Promise<Result>)[],
): Promise<readonly Result[]> {
  return inSession(target, async (client) => {
    await client.query("BEGIN");
    await client.query(holding);
    const running = Promise.allSettled(racers.map((start) => start()));
    await until(`${racers.length} statements wait`, async () => (await waiting(target)) === racers.length);
    await client.query("ROLLBACK");
    return (await running).map((settled) => {
      if (settled.status === "rejected") throw settled.reason;
      return settled.value;
    });
  });
}

async function waiting(target: PostgresTarget): Promise<number> {
  const [row] = await sql<{ count: number }>(
    target,
    `SELECT count(*)::integer AS count FROM pg_stat_activity
     WHERE application_name = $1 AND datname = $2 AND wait_event_type = 'Lock'`,
    [RACERS, target.database],
  );
  return row?.count ?? 0;
}

/** The number of occurrences of each text. */
export function tally(texts: readonly string[]): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const text of texts) counts[text] = (counts[text] ?? 0) + 1;
  return counts;
}
