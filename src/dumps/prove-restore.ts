import { Transform } from "node:stream";
import type { Client } from "pg";
import { databaseErrorOf, withSession } from "../database/session.ts";
import { OperatorError } from "../errors.ts";
import type { Clock } from "../machine/clock.ts";
import type { PostgresTarget } from "../settings/postgres-target.ts";
import { decimalBytes } from "../units.ts";
import {
  compareDatabases,
  type DatabaseFacts,
  type Difference,
  OBJECTS_SQL,
  type ObjectFact,
  ROLES_SQL,
  type RowsFact,
  rowsSql,
  type SequenceFact,
  SEQUENCES_SQL,
  settingsSql,
  TABLES_SQL,
} from "./database-facts.ts";
import { type Dump, openDump, openExportedSnapshot } from "./dump.ts";
import { type ScratchPostgres, startScratch } from "./scratch-postgres.ts";
import type { Throwaway } from "./throwaway.ts";

/** What a restored dump showed. */
export interface Proof {
  /** None: the restored copy is the snapshot. */
  readonly differences: readonly Difference[];
  readonly tables: number;
  readonly rows: bigint;
  readonly objects: number;
  readonly dumpBytes: number;
  /** How long the snapshot was held in the database. */
  readonly snapshotMs: number;
  /** From the first byte of the dump to the end of its restore. */
  readonly restoreMs: number;
}

/** What the proof is made with. */
interface ProofGiven {
  /** Names and the mark of its containers; `suffix` makes the names unique. */
  readonly mark: string;
  readonly suffix: string;
  readonly image: string;
  readonly dataPath: string;
  readonly stop: AbortSignal;
  /** After this, the server itself ends what is still running. */
  readonly timeoutMs: number;
  readonly clock: Pick<Clock, "monotonicMs" | "wait">;
  readonly report: (line: string) => void;
}

const LOCK_MS = 10_000;

/**
 * Dumps a database, restores the dump in a Postgres without network and compares the copy with the snapshot that was dumped. Only
 * reads the database. Throws `stop.reason` when it is stopped; its containers are there until they are removed by the mark.
 */
export async function proveRestore(
  engine: Throwaway,
  target: PostgresTarget,
  given: ProofGiven,
): Promise<Proof> {
  const { stop, timeoutMs } = given;
  stop.throwIfAborted();
  const session = {
    applicationName: "fula-node drill",
    readOnly: true,
    statementTimeoutMs: timeoutMs,
    lockTimeoutMs: LOCK_MS,
  };
  const started: Promise<unknown>[] = [];
  const stopped = whenAborted(stop);
  try {
    const { source, later, scratch, ...measured } = await withSession(target, session, (client) =>
      Promise.race([dumpAndRestore(engine, target, given, client, started), stopped]),
    );
    given.report("comparing the restored copy with the snapshot");
    const copy = await Promise.race([readCopy(scratch, source), stopped]);
    const rows = source.rows.reduce((sum, one) => sum + BigInt(one.rows), 0n);
    return {
      ...measured,
      differences: compareDatabases(source, copy, later),
      tables: source.rows.length,
      objects: source.objects.length,
      rows,
    };
  } catch (thrown) {
    await endStarted(engine, given, started);
    throw thrown;
  }
}

/**
 * What works in a container ends when that is removed. One that the engine is still about to create is not there to be removed yet, so
 * this looks again until nothing that was started goes on. What can't be removed now is said by whoever cleans up.
 */
async function endStarted(
  engine: Throwaway,
  { mark, clock }: ProofGiven,
  started: readonly Promise<unknown>[],
): Promise<void> {
  let isOpen = true;
  void Promise.allSettled(started).then(() => (isOpen = false));
  for (;;) {
    await Promise.allSettled([engine.removeMarked(mark)]);
    if (!isOpen) return;
    await clock.wait(100);
  }
}

interface Restored extends Pick<Proof, "dumpBytes" | "snapshotMs" | "restoreMs"> {
  readonly source: DatabaseFacts;
  readonly later: readonly SequenceFact[];
  readonly scratch: ScratchPostgres;
}

async function dumpAndRestore(
  engine: Throwaway,
  target: PostgresTarget,
  given: ProofGiven,
  client: Client,
  started: Promise<unknown>[],
): Promise<Restored> {
  const { mark, suffix, image, dataPath, timeoutMs, clock, stop, report } = given;
  const ask = async <Row>(sql: string): Promise<readonly Row[]> => (await client.query(sql)).rows as Row[];
  const [named] = await ask<{ encoding: string }>("SELECT current_setting('server_encoding') AS encoding");
  report("starting a Postgres without network");
  const starting = startScratch(engine, {
    name: `fula-drill-postgres-${suffix}`,
    mark,
    image,
    dataPath,
    encoding: named?.encoding ?? "UTF8",
    timeoutMs,
  });
  started.push(starting);
  starting.catch(() => {});

  const heldFrom = clock.monotonicMs();
  const snapshot = await openExportedSnapshot(client, timeoutMs);
  const source = await readSource(ask);
  const roles = await ask<{ role: string }>(ROLES_SQL);
  const scratch = await starting;
  stop.throwIfAborted();
  await scratch.createRoles(roles.map(({ role }) => role));

  report("dumping the database and restoring the dump");
  const restoreFrom = clock.monotonicMs();
  const name = `fula-drill-dump-${suffix}`;
  const dump = await openDump(engine, target, { name, mark, image, snapshot });
  started.push(dump.ended);
  const dumpBytes = await restore(dump, scratch, stop);
  const later = await ask<SequenceFact>(SEQUENCES_SQL);
  await client.query("COMMIT");
  const now = clock.monotonicMs();
  report(`restored a dump of ${decimalBytes(dumpBytes)}`);
  return { source, later, scratch, dumpBytes, snapshotMs: now - heldFrom, restoreMs: now - restoreFrom };
}

async function readSource(ask: <Row>(sql: string) => Promise<readonly Row[]>): Promise<DatabaseFacts> {
  const objects = await ask<ObjectFact>(OBJECTS_SQL);
  const sequences = await ask<SequenceFact>(SEQUENCES_SQL);
  const rows: RowsFact[] = [];
  for (const { table } of await ask<{ table: string }>(TABLES_SQL)) rows.push(await readRows(ask, table));
  return { objects, sequences, rows };
}

async function readRows(
  ask: <Row>(sql: string) => Promise<readonly Row[]>,
  table: string,
): Promise<RowsFact> {
  try {
    const [found] = await ask<RowsFact>(rowsSql(table));
    if (found === undefined) throw new TypeError("an aggregate has one row");
    return found;
  } catch (thrown) {
    const error = databaseErrorOf(thrown);
    if (error === null) throw thrown;
    throw new OperatorError({
      exit: "unavailable",
      what: `The table ${table} could not be read: ${error.message}.`,
      remedy:
        error.code === "55P03"
          ? "Something holds a lock on it, such as a migration: wait until that ends, then run again."
          : "Look at the log of the database, then run again.",
      cause: thrown,
    });
  }
}

/** Of the restored copy, only tables that it has can be counted. */
async function readCopy(scratch: ScratchPostgres, source: DatabaseFacts): Promise<DatabaseFacts> {
  const settings = settingsSql(false);
  const objects = await scratch.query<ObjectFact>(settings, OBJECTS_SQL);
  const sequences = await scratch.query<SequenceFact>(settings, SEQUENCES_SQL);
  const has = new Set(
    (await scratch.query<{ table: string }>(settings, TABLES_SQL)).map(({ table }) => table),
  );
  const both = source.rows.filter(({ table }) => has.has(table)).map(({ table }) => rowsSql(table));
  const rows = both.length === 0 ? [] : await scratch.query<RowsFact>(settings, both.join(" UNION ALL "));
  return { objects, sequences, rows };
}

/** Returns the size of the dump. A dump that did not come to its end is the cause of whatever its restore says. */
async function restore(
  { stream, ended }: Dump,
  scratch: ScratchPostgres,
  stop: AbortSignal,
): Promise<number> {
  let bytes = 0;
  const counted = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      done(null, chunk);
    },
  });
  stream.pipe(counted);
  // A stream that nobody reads holds up Docker itself: it would not even remove the container.
  const release = (): void => {
    stream.destroy();
    counted.destroy();
  };
  stop.addEventListener("abort", release, { once: true });
  const [restored] = await Promise.allSettled([scratch.restore(counted)]);
  stop.removeEventListener("abort", release);
  const isWhole = stream.readableEnded;
  release();
  if (isWhole) await ended;
  if (restored.status === "rejected") throw restored.reason;
  await ended;
  return bytes;
}

/** Rejects with the signal's reason once it is aborted. */
function whenAborted(stop: AbortSignal): Promise<never> {
  const aborted = new Promise<never>((_resolve, reject) => {
    stop.addEventListener("abort", () => reject(stop.reason as Error), { once: true });
  });
  aborted.catch(() => {});
  return aborted;
}
