import {
  connectionFaultOf,
  faultOfState,
  isTransient,
  lacksRowNumbers,
} from "../database/connection-fault.ts";
import { findRemoval, removedMaster } from "../database/masters.ts";
import type { openPostgresPool, PostgresPool } from "../database/postgres.ts";
import { messageOf, OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { postgresTarget } from "../settings/postgres-target.ts";
import { databaseOf, type InstalledMaster } from "./installed-node.ts";

/**
 * Throws (`foreign`) if this master was removed from its pool. A database that does not answer is no obstacle: snapshots
 * and sweeps work without it.
 */
export async function refuseRemoved(
  { postgres }: Pick<HostReader, "postgres">,
  { values }: InstalledMaster,
): Promise<void> {
  const [id, target] = [values("MASTER_ID"), postgresTarget(values)];
  if (id === undefined || target === null) return;
  const removed = await findRemoval((sql, given) => postgres.query(target, sql, given), id).catch(
    (thrown: unknown) => {
      if (thrown instanceof OperatorError || connectionFaultOf(thrown) !== null) return null;
      throw thrown;
    },
  );
  if (removed !== null) throw removedMaster(removed);
}

/**
 * Runs `work` with one connection to the master's database, and closes it. Throws `unavailable` if the database can't be
 * reached, `pending` if a migration is missing, `settings` if it refuses the connection, and `foreign` if this master was
 * removed from its pool.
 */
export async function withMasterDatabase<Result>(
  { openPool }: { readonly openPool: typeof openPostgresPool },
  master: InstalledMaster,
  verb: string,
  work: (database: PostgresPool) => Promise<Result>,
): Promise<Result> {
  const target = databaseOf(master);
  const settings = { ...target, maxConnections: 1, idleTimeoutMs: 1_000, connectTimeoutMs: 5_000 };
  const database = openPool(settings, { applicationName: `fula-node ${verb}`, log: () => undefined });
  try {
    const id = master.values("MASTER_ID");
    const removed =
      id === undefined ? null : await findRemoval((sql, values) => database.query(sql, values), id);
    if (removed !== null) throw removedMaster(removed);
    return await work(database);
  } catch (thrown) {
    throw thrown instanceof OperatorError
      ? thrown
      : explainDatabaseError(thrown, `${target.host}:${target.port}`);
  } finally {
    await database.close();
  }
}

function explainDatabaseError(thrown: unknown, where: string): unknown {
  const { severity, code } = (thrown ?? {}) as { readonly severity?: unknown; readonly code?: unknown };
  if (severity === undefined) {
    return new OperatorError({
      exit: "unavailable",
      what: `PostgreSQL at ${where} can't be reached: ${messageOf(thrown) || String(code)}.`,
      remedy: "Check that it runs (fula-node status), then run again.",
      cause: thrown,
    });
  }
  if (code === "42P01" || code === "42703" || code === "42883") {
    return new OperatorError({
      exit: "pending",
      what: "The database lacks a table, column or function that this command needs.",
      remedy: "Run fula-node migrate up, then run this command again.",
      cause: thrown,
    });
  }
  if (lacksRowNumbers(thrown)) {
    return new OperatorError({
      exit: "drift",
      what: "A table of the database has no number for another row, so it takes none.",
      why: messageOf(thrown),
      remedy: "See docs/billing.md#row-numbers, then run this command again.",
      cause: thrown,
    });
  }
  const fault = faultOfState(code);
  if (fault === "access-denied" || fault === "no-database") {
    return new OperatorError({
      exit: "settings",
      what: `PostgreSQL at ${where} refused the connection: ${messageOf(thrown)}.`,
      remedy: "Run join-as-master again: it reports which POSTGRES_ setting is wrong.",
      cause: thrown,
    });
  }
  // The server ended the session or the statement, or has no memory or disk space left.
  if (isTransient(fault))
    return new OperatorError({
      exit: "unavailable",
      what: `PostgreSQL at ${where} stopped in the middle of the command: ${messageOf(thrown)}.`,
      why: "What it had finished before is kept. Nothing is done by half.",
      remedy: "Check the database (fula-node status), then run the command again.",
      cause: thrown,
    });
  return thrown;
}
