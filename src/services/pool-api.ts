import { Hono } from "hono";
import { type Log, OperatorError } from "../errors.ts";
import type { ClusterReader } from "../cluster/client.ts";
import { countLines } from "../machine/line-scanner.ts";
import { type App, failure, json } from "./server.ts";

const RETRY_SECONDS = "5";

/**
 * `GET /api/v1/pool`: the pool's name, the id of the master's cluster peer, and how many pins that peer's own pinset
 * has, so that a joining node can show its progress. It needs no account: the node has none, the cluster's secret
 * is public, and every member has the pinset anyway. Frequent requests do not load the cluster (createPinCount).
 */
export function poolApi(
  pool: string | null,
  { count, log }: { readonly count: () => Promise<PinCount>; readonly log: Log },
): App {
  const app: App = new Hono();
  return app.get("/api/v1/pool", async () => {
    if (pool === null) return noPool();
    try {
      const { peerId, pins, countedAt } = await count();
      return json(200, { pool, peerId, pins, countedAt: countedAt.toISOString() });
    } catch (thrown) {
      if (!(thrown instanceof OperatorError)) throw thrown;
      log(`the pins could not be counted: ${thrown.what}`, "warn");
      const error = "The pinset can't be counted now. Try again.";
      return failure(503, "not-counted", error, {}, { "retry-after": RETRY_SECONDS });
    }
  });
}

/** The response of a master without CLUSTERNAME. */
export function noPool(): Response {
  return failure(503, "no-pool", "This master has no CLUSTERNAME, so it has no node directory.");
}

/** How many pins a cluster peer's own pinset has. */
export interface PinCount {
  readonly peerId: string;
  readonly pins: number;
  readonly countedAt: Date;
}

/** What is needed to count. `nowMs` must be monotonic. */
export interface PinCountDeps {
  readonly openCluster: () => Pick<ClusterReader, "identity" | "list">;
  readonly nowMs: () => number;
}

/** How long a count, or a failure to count, is cached. */
const FRESH_MS = 5_000;
/** A pinset that takes long to count is counted less often: counting takes at most a tenth of the time. */
const FRESH_FOR_EACH_MS_OF_COUNTING = 10;

/**
 * Creates a function that counts the cluster's pins in constant memory. Calls during a count share its result, and a
 * fresh count is cached, so many callers cause few requests to the cluster. Rejects with the cluster's OperatorError
 * if the list was not complete: a partial list gives no count.
 */
export function createPinCount({ openCluster, nowMs }: PinCountDeps): () => Promise<PinCount> {
  let cluster: ReturnType<PinCountDeps["openCluster"]> | null = null;
  let last: Promise<PinCount> | null = null;
  let freshUntilMs = Number.POSITIVE_INFINITY;

  async function count(): Promise<PinCount> {
    const startMs = nowMs();
    let freshForMs = FRESH_MS;
    try {
      cluster ??= openCluster();
      const { id } = await cluster.identity();
      let pins = 0;
      await cluster.list("allocations", (lines) => {
        pins += countLines(lines);
      });
      const countedAt = new Date();
      freshForMs = Math.max(FRESH_MS, FRESH_FOR_EACH_MS_OF_COUNTING * (nowMs() - startMs));
      return { peerId: id, pins, countedAt };
    } finally {
      freshUntilMs = nowMs() + freshForMs;
    }
  }

  return () => {
    if (last !== null && nowMs() < freshUntilMs) return last;
    freshUntilMs = Number.POSITIVE_INFINITY;
    last = count();
    return last;
  };
}
