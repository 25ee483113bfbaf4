import type { Cluster } from "../cluster/client.ts";
import { readDagSize } from "../cluster/dag-size.ts";
import { limitConnections, type PostgresPool } from "../database/postgres.ts";
import type { Log } from "../errors.ts";
import type { Distrusting } from "../federation/pool-trust.ts";
import type { HttpReader } from "../machine/http.ts";
import { type PinWorker, startPinWorker } from "../pinning/worker.ts";
import type { PinningApiSettings } from "../settings/services.ts";
import type { GaugeSource } from "./server.ts";

/** The queue of pin requests in a service. */
export interface PinQueue extends Pick<PinWorker, "state" | "wake" | "request"> {
  /** Stops it, and waits for the work in progress. The pool stays open. */
  close(): Promise<void>;
}

/** How many requests are worked on at once. They need memory, and no connections of their own. */
const SLOTS = 64;
/** How many calls to the cluster may be on their way at once. */
const CLUSTER_CALLS = 16;
/** A third of the pool's connections is enough for the queue, and no more than these; requests of clients need the others. */
const MOST_CONNECTIONS = 8;

const TRUST_FRESH_MS = 5_000;

/** The same question, asked again only when its answer is that old. A refusal is not kept. */
function keptFor<Value>(ms: number, ask: () => Promise<Value>): () => Promise<Value> {
  let kept: { readonly answer: Promise<Value>; readonly until: number } | null = null;
  return () => {
    if (kept !== null && performance.now() < kept.until) return kept.answer;
    const answer = ask();
    const mine = { answer, until: performance.now() + ms };
    kept = mine;
    answer.catch(() => {
      if (kept === mine) kept = null;
    });
    return answer;
  };
}

/** Starts to work on the pin requests in the service's database. */
export function openPinQueue(
  settings: Pick<PinningApiSettings, "postgres" | "kuboUrl" | "limits">,
  deps: {
    readonly pool: PostgresPool;
    readonly http: HttpReader;
    readonly log: Log;
    readonly stop: AbortSignal;
    readonly mayPin: (account: string) => Promise<boolean>;
    /** A master that does not trust this one's cluster; null if there is none. */
    readonly findDistrusting: () => Promise<Distrusting | null>;
    readonly openCluster: (connections: number, stop: AbortSignal) => Cluster;
  },
): PinQueue {
  const { pool, http, log, mayPin, findDistrusting, openCluster } = deps;
  const { kuboUrl, limits, postgres } = settings;
  const connections = Math.min(MOST_CONNECTIONS, Math.max(2, Math.floor(postgres.maxConnections / 3)));
  const closing = new AbortController();
  const stop = AbortSignal.any([deps.stop, closing.signal]);
  const worker = startPinWorker({
    pool: limitConnections(pool, connections),
    openCluster: () => openCluster(CLUSTER_CALLS, stop),
    dagSize: (cid, timeoutMs) => readDagSize(http, kuboUrl, cid, timeoutMs),
    mayPin,
    heldBack: keptFor(TRUST_FRESH_MS, async () => {
      const found = await findDistrusting();
      return (
        found &&
        `the master ${found.by} does not trust this one yet, so requests are left to it; run there: fula-node trust add ${found.own}`
      );
    }),
    log,
    settings: {
      slots: SLOTS,
      // Each holds a connection while the cluster is called. The others are for claims, outcomes and signs of life.
      transactions: connections < MOST_CONNECTIONS ? 1 : 2,
      deadlineMs: limits.deadlineSeconds * 1_000,
    },
    stop,
  });
  return {
    state: () => worker.state(),
    wake: () => worker.wake(),
    request: () => worker.request(),
    async close() {
      closing.abort();
      await worker.stopped;
    },
  };
}

/** How the queue stands, for the metrics. The worker counts every ten seconds, whoever asks. */
export function queueGauges(queue: Pick<PinQueue, "state">): readonly GaugeSource[] {
  return [
    {
      name: "fula_pin_queue_requests",
      help: "Pin requests. waiting: not pinned or not unpinned yet; sending: worked on now; failed. At most 100000 are counted.",
      label: "state",
      read() {
        const { waiting, inProgress: sending, failed, countedAt } = queue.state();
        // A zero that was not counted would look like a jump once the first count comes.
        return countedAt === null ? { sending } : { waiting, sending, failed };
      },
    },
    {
      name: "fula_pin_queue_oldest_seconds",
      help: "The age of the oldest request that waits.",
      read: () => queue.state().oldestSeconds,
    },
    {
      name: "fula_pin_queue_counted_timestamp_seconds",
      help: "When the requests were last counted, in seconds since 1970; 0: not since the start.",
      read: () => (queue.state().countedAt?.getTime() ?? 0) / 1_000,
    },
    {
      name: "fula_pin_queue_last_success_timestamp_seconds",
      help: "When the queue last finished some work, in seconds since 1970; 0: not since the start.",
      read: () => (queue.state().lastSuccessAt?.getTime() ?? 0) / 1_000,
    },
    {
      name: "fula_pin_queue_fault",
      help: "1 while the cluster or the database does not work for the queue.",
      read: () => (queue.state().fault === null ? 0 : 1),
    },
  ];
}
