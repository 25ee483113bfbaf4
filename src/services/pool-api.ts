import { Hono } from "hono";
import { OperatorError } from "../errors.ts";
import type { ClusterReader } from "../cluster/client.ts";
import { countLines } from "../machine/line-scanner.ts";
import { type App, failure, json } from "./server.ts";

const RETRY_SECONDS = "5";

/**
 * `GET /api/v1/pool`: which pool this is, which cluster peer speaks for it, and how many pins that peer's own
 * pinset holds, so that a node which joins knows how far it is. Open to anybody: the node has no account, the
 * cluster's secret is public, and every member has the pinset itself. Asking often costs the cluster nothing
 * (createPinCount).
 */
export function poolApi(
  pool: string | null,
  { count, log }: { readonly count: () => Promise<PinCount>; readonly log: (line: string) => void },
): App {
  const app: App = new Hono();
  return app.get("/api/v1/pool", async () => {
    if (pool === null) return noPool();
    try {
      const { peerId, pins, countedAt } = await count();
      return json(200, { pool, peerId, pins, countedAt: countedAt.toISOString() });
    } catch (thrown) {
      if (!(thrown instanceof OperatorError)) throw thrown;
      log(`the pins were not counted: ${thrown.what}`);
      const error = "The pinset can't be counted now; try again.";
      return failure(503, "not-counted", error, {}, { "retry-after": RETRY_SECONDS });
    }
  });
}

/** For a master that was not told its pool. */
export function noPool(): Response {
  return failure(503, "no-pool", "This master has no CLUSTERNAME, so it keeps no node names.");
}

/** How many pins a cluster peer's own pinset holds. */
export interface PinCount {
  readonly peerId: string;
  readonly pins: number;
  readonly countedAt: Date;
}

/** What is counted with; `nowMs` never goes back. */
export interface PinCountDeps {
  readonly openCluster: () => Pick<ClusterReader, "identity" | "list">;
  readonly nowMs: () => number;
}

/** A count, or the failure to make one, is told again for so long. */
const FRESH_MS = 5_000;
/** A pinset that takes long to count is counted the more rarely: a tenth of the time at most goes into it. */
const FRESH_FOR_EACH_MS_OF_COUNTING = 10;

/**
 * Makes a function that tells how many pins the cluster has, in constant memory. Whoever asks while it is
 * counted waits for that one count, and a fresh one is told again: however many ask, the cluster is asked
 * rarely. Rejects with the cluster's OperatorError where the list did not come whole: a part is no count.
 */
export function createPinCount({ openCluster, nowMs }: PinCountDeps): () => Promise<PinCount> {
  let cluster: ReturnType<PinCountDeps["openCluster"]> | null = null;
  let last: Promise<PinCount> | null = null;
  let freshUntilMs = Number.POSITIVE_INFINITY;

  async function count(): Promise<PinCount> {
    const begunMs = nowMs();
    let freshForMs = FRESH_MS;
    try {
      cluster ??= openCluster();
      const { id } = await cluster.identity();
      let pins = 0;
      await cluster.list("allocations", (lines) => {
        pins += countLines(lines);
      });
      const countedAt = new Date();
      freshForMs = Math.max(FRESH_MS, FRESH_FOR_EACH_MS_OF_COUNTING * (nowMs() - begunMs));
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
