import { onTestFinished } from "vitest";
import { openCluster } from "../../src/cluster/client.ts";
import type { PostgresPool } from "../../src/database/postgres.ts";
import { newRequestId } from "../../src/pinning/pin-owner.ts";
import { type PinWorker, type PinWorkerDeps, startPinWorker } from "../../src/pinning/worker.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import type { ClusterDouble } from "./cluster-double.ts";
import { openPool } from "./names-database.ts";
import { sql } from "./postgres-server.ts";

type Database = Pick<PostgresPool, "query">;

/** Accepts a request as the API does: its row and its work in one statement. Returns its id. */
export async function accept(
  database: Database,
  request: {
    readonly account: string;
    readonly cid: string;
    readonly name?: string;
    readonly meta?: Readonly<Record<string, string>>;
    readonly origins?: readonly string[];
    readonly deadlineMs?: number;
  },
): Promise<string> {
  const { account, cid, name = "", meta = {}, origins = [], deadlineMs = 3_600_000 } = request;
  const requestid = newRequestId();
  await database.query(
    `WITH request AS (
       INSERT INTO pins (requestid, user_id, cid, name, meta, origins) VALUES ($1, $2, $3, $4, $5, $6) RETURNING requestid)
     INSERT INTO pin_work (requestid, account, cid, action, deadline_at)
     SELECT requestid, $2, $3, 'pin', now() + $7 * interval '1 millisecond' FROM request`,
    [requestid, account, cid, name, JSON.stringify(meta), JSON.stringify(origins), deadlineMs],
  );
  return requestid;
}

/** Deletes a request as the API does. */
export async function remove(database: Database, requestid: string): Promise<void> {
  await database.query(
    `WITH gone AS (UPDATE pins SET status = 'deleted' WHERE requestid = $1 RETURNING requestid, user_id, cid)
     INSERT INTO pin_work (requestid, account, cid, action, deadline_at)
     SELECT requestid, user_id, cid, 'unpin', now() FROM gone
     ON CONFLICT (requestid) DO UPDATE
     SET action = 'unpin', due_at = now(), attempts = 0, claim = NULL, claimed_until = NULL`,
    [requestid],
  );
}

/** A request, and what is left to do for it: `pinned, size`. */
export async function standingOf(target: PostgresTarget, requestid: string): Promise<string> {
  const [row] = await sql<{ standing: string }>(
    target,
    `SELECT concat_ws(', ', p.status, w.phase) AS standing FROM pins p LEFT JOIN pin_work w USING (requestid) WHERE requestid = $1`,
    [requestid],
  );
  return row?.standing ?? "no such request";
}

/** `info` and `size` of a request. */
export async function factsOf(
  target: PostgresTarget,
  requestid: string,
): Promise<{ readonly info: Readonly<Record<string, string>>; readonly size: number }> {
  const [row] = await sql<{ info: string; size: string }>(
    target,
    "SELECT info, size FROM pins WHERE requestid = $1",
    [requestid],
  );
  return { info: JSON.parse(row?.info ?? "null") as Record<string, string>, size: Number(row?.size) };
}

/** The number of rows of pin_work. */
export async function workLeft(target: PostgresTarget): Promise<number> {
  const [row] = await sql<{ count: number }>(target, "SELECT count(*)::integer AS count FROM pin_work");
  return row?.count ?? -1;
}

/** A worker on a database and a double, with short times. It stops after the test. */
export function workOn(
  target: PostgresTarget,
  double: Pick<ClusterDouble, "url">,
  options: {
    readonly settings?: Partial<PinWorkerDeps["settings"]>;
    readonly mayPin?: PinWorkerDeps["mayPin"];
    readonly heldBack?: PinWorkerDeps["heldBack"];
    readonly dagSize?: PinWorkerDeps["dagSize"];
    readonly requestTimeoutMs?: number;
  } = {},
): PinWorker & { readonly lines: readonly string[]; stop(): Promise<void> } {
  const {
    settings,
    mayPin = async () => true,
    heldBack = async () => null,
    dagSize = async () => 1000,
    requestTimeoutMs = 10_000,
  } = options;
  const stop = new AbortController();
  const pool = openPool(target, 24);
  const lines: string[] = [];
  const worker = startPinWorker({
    pool,
    openCluster: () => openCluster({ endpoint: double.url, requestTimeoutMs, signal: stop.signal }),
    dagSize,
    mayPin,
    heldBack,
    log: (line) => void lines.push(line),
    settings: {
      deadlineMs: 3_600_000,
      slots: 8,
      leaseMs: 1_500,
      pollMs: 50,
      forgottenAfterMs: 500,
      ...settings,
    },
    stop: stop.signal,
  });
  const end = async (): Promise<void> => {
    stop.abort();
    await worker.stopped;
    await pool.close();
  };
  let ended: Promise<void> | null = null;
  const stopOnce = (): Promise<void> => (ended ??= end());
  onTestFinished(stopOnce);
  return { ...worker, lines, stop: stopOnce };
}

/** What a claim asks for that takes whatever is due, with four places for each account. */
export const WHATEVER_IS_DUE = {
  limit: 8,
  cursor: "",
  busy: [],
  leaseMs: 60_000,
  window: 4,
  windows: {},
  searches: 4,
  places: 64,
  first: false,
} as const;
