import type { Cluster } from "../cluster/client.ts";
import { readDagSize } from "../cluster/dag-size.ts";
import type { PostgresPool } from "../database/postgres.ts";
import type { HttpReader } from "../machine/http.ts";
import { type PinWorker, startPinWorker } from "../pinning/worker.ts";
import type { PinningApiSettings } from "../settings/services.ts";

/** The queue of pin requests in a service. */
export interface PinQueue extends Pick<PinWorker, "state" | "wake"> {
  /** Stops it, and waits for the work in progress. The pool stays open. */
  close(): Promise<void>;
}

/** A third of the pool's connections is enough for the queue; requests of clients need the others. */
const MAX_SLOTS = 8;

/** Starts to work on the pin requests in the service's database. */
export function openPinQueue(
  settings: Pick<PinningApiSettings, "postgres" | "kuboUrl" | "limits">,
  deps: {
    readonly pool: PostgresPool;
    readonly http: HttpReader;
    readonly log: (line: string) => void;
    readonly stop: AbortSignal;
    readonly mayPin: (account: string) => Promise<boolean>;
    readonly openCluster: (connections: number, stop: AbortSignal) => Cluster;
  },
): PinQueue {
  const { pool, http, log, mayPin, openCluster } = deps;
  const { kuboUrl, limits, postgres } = settings;
  const slots = Math.min(MAX_SLOTS, Math.max(1, Math.floor(postgres.maxConnections / 3)));
  const closing = new AbortController();
  const stop = AbortSignal.any([deps.stop, closing.signal]);
  const worker = startPinWorker({
    pool,
    openCluster: () => openCluster(slots + 1, stop),
    dagSize: (cid, timeoutMs) => readDagSize(http, kuboUrl, cid, timeoutMs),
    mayPin,
    log,
    settings: { slots, deadlineMs: limits.deadlineSeconds * 1_000 },
    stop,
  });
  return {
    state: () => worker.state(),
    wake: () => worker.wake(),
    async close() {
      closing.abort();
      await worker.stopped;
    },
  };
}
