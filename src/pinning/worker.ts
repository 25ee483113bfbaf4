import { randomUUID } from "node:crypto";
import { setMaxListeners } from "node:events";
import type { Cluster } from "../cluster/client.ts";
import { type Log, messageOf, OperatorError } from "../errors.ts";
import { withoutCids } from "../units.ts";
import { Batches, Pause, untilNone } from "./batches.ts";
import { type Outcome, putOff, writeOutcomes } from "./outcomes.ts";
import { PinWork, type PinWorkDeps, Unanswered } from "./pin-work.ts";
import {
  claimWork,
  type Depth,
  extendClaims,
  giveAccounts,
  lookAgain,
  type Phase,
  quickAccounts,
  readDepth,
  takeOver,
  type Work,
} from "./queue.ts";
import {
  busyAccounts,
  FIRST_EVERY_MS,
  MAX_WINDOWS,
  PLACES,
  SEARCHES,
  WINDOW,
  Windows,
  Yielding,
} from "./turns.ts";
import { sendForgotten, watchPins } from "./watch.ts";

/** The settings of the worker. Only `deadlineMs` and `slots` are the operator's. */
export interface PinWorkerSettings {
  /** How long content may be searched for. */
  readonly deadlineMs: number;
  /** How many requests are worked on at once. They share connections to the database. */
  readonly slots: number;
  /** How many transactions may be open while the cluster is called. */
  readonly transactions?: number;
  /** How long a claim lasts without a sign of life. */
  readonly leaseMs?: number;
  readonly pollMs?: number;
  readonly forgottenAfterMs?: number;
  /** How often the pins that are done are compared with the cluster. */
  readonly watchEveryMs?: number;
}

/** How the worker stands, for /health, /metrics and `status`. */
export interface PinWorkerState extends Depth {
  readonly inProgress: number;
  /** When work last ended well; null: not since the start. */
  readonly lastSuccessAt: Date | null;
  /** What does not work now: the cluster or the database. Null if both do. */
  readonly fault: string | null;
}

/** A worker that runs. */
export interface PinWorker {
  /** Resolves once nothing is in progress after the stop. */
  readonly stopped: Promise<void>;
  state(): PinWorkerState;
  /** A request of a client begins, which goes first. Call the result once it is answered. */
  request(): () => void;
  /** Looks for new work soon. */
  wake(): void;
}

/** What the worker needs. */
export interface PinWorkerDeps extends Pick<PinWorkDeps, "pool" | "dagSize" | "mayPin"> {
  /** Why this master leaves the work to the others for now; null if it need not. */
  readonly heldBack: () => Promise<string | null>;
  readonly openCluster: () => Cluster;
  readonly log: Log;
  readonly settings: PinWorkerSettings;
  readonly stop: AbortSignal;
}

const LEASE_MS = 20_000;
const POLL_MS = 400;
const FORGOTTEN_MS = 60_000;
const WATCH_EVERY_MS = 10 * 60_000;
const TAKE_OVER_EVERY_MS = 60_000;
const DEPTH_EVERY_MS = 10_000;
/** How long after a fault of the database it is asked again. */
const DATABASE_RETRY_MS = 500;
const CLUSTER_RETRY_MS = 2_000;
/** A call that got no answer has had its effect by then, if the server lives. */
const UNANSWERED_MS = 2_000;
/** What ends or comes within this time is claimed with one statement. */
const CLAIM_EVERY_MS = 10;
/** Sizes take long: they have slots of their own. */
const SIZE_SLOTS = 4;
const TRANSACTIONS = 2;
/** How many outcomes one statement writes. One that waits for a row does not hold up all others. */
const WRITES = { most: 64, atOnce: 2 };

/**
 * Works on the pin requests of this database until the stop. Every master can run one: a row is worked on by one process
 * at a time. Whatever fails is tried again; it never throws.
 */
export function startPinWorker(deps: PinWorkerDeps): PinWorker {
  const worker = new Worker(deps);
  return {
    stopped: worker.run(),
    state: () => worker.state(),
    request: () => worker.request(),
    wake: () => worker.wake(),
  };
}

class Worker {
  readonly #deps: PinWorkerDeps;
  readonly #cluster: Cluster;
  readonly #work: PinWork;
  readonly #windows = new Windows();
  readonly #outcomes: Batches<Outcome, Outcome>;
  readonly #leaseMs: number;
  readonly #pollMs: number;
  readonly #stop: AbortSignal;
  readonly #inProgress = new Map<Work, Promise<void>>();
  readonly #news = new Pause();
  readonly #yielding = new Yielding();
  /** Ends when the cluster is back: it may have lost pins. */
  readonly #clusterBack = new Pause();
  readonly #faults = new Map<"database" | "cluster" | "trust", string>();
  readonly #invented = new Set<string>();
  #clusterFailures = 0;
  #clusterPausedUntil = 0;
  #firstAgainAt = Number.NEGATIVE_INFINITY;
  #lastSuccessAt: Date | null = null;
  #depth: Depth = { waiting: 0, oldestSeconds: 0, failed: 0, countedAt: null };

  constructor(deps: PinWorkerDeps) {
    const { pool, dagSize, mayPin, settings, stop, openCluster } = deps;
    this.#deps = deps;
    this.#stop = AbortSignal.any([stop]);
    // Every request that was just sent waits a moment for its first look.
    setMaxListeners(0, this.#stop);
    this.#leaseMs = settings.leaseMs ?? LEASE_MS;
    this.#pollMs = settings.pollMs ?? POLL_MS;
    this.#cluster = openCluster();
    const { forgottenAfterMs = FORGOTTEN_MS, transactions = TRANSACTIONS } = settings;
    const workDeps: PinWorkDeps = {
      pool,
      dagSize,
      mayPin,
      cluster: this.#cluster,
      windows: this.#windows,
      leaseMs: this.#leaseMs,
      forgottenAfterMs,
      wait: (ms) => new Pause().wait(ms, this.#stop),
      onInvented: (status) => this.#noteInvented(status),
      onUnanswered: (thrown) => this.#failsUnlessStopped(thrown),
    };
    this.#work = new PinWork(workDeps, transactions);
    this.#outcomes = new Batches((outcomes) => writeOutcomes(pool, outcomes, settings.deadlineMs), WRITES);
  }

  async run(): Promise<void> {
    const { pool, settings } = this.#deps;
    const beat = setInterval(() => void this.#extend(), this.#leaseMs / 3);
    const { deadlineMs, slots, watchEveryMs = WATCH_EVERY_MS } = settings;
    try {
      await this.#begin();
      await Promise.all([
        this.#lane(["unpin", "look", "send"], slots, this.#news),
        this.#lane(["size"], SIZE_SLOTS, new Pause()),
        this.#regularly(TAKE_OVER_EVERY_MS, () => this.#takeOver(deadlineMs)),
        this.#regularly(DEPTH_EVERY_MS, async () => {
          this.#depth = await readDepth(pool);
        }),
        this.#regularly(watchEveryMs, () => this.#watch(), watchEveryMs, this.#clusterBack),
      ]);
      await Promise.all(this.#inProgress.values());
    } finally {
      clearInterval(beat);
      this.#cluster.close();
    }
  }

  /** The accounts that were quick before this worker began go on with a window of their own. */
  async #begin(): Promise<void> {
    try {
      const quick = await quickAccounts(this.#deps.pool, MAX_WINDOWS);
      for (const account of quick.toReversed()) this.#windows.pinned(account, 0);
    } catch (thrown) {
      // They get their windows with their next pins.
      this.#failsUnlessStopped(thrown);
    }
  }

  state(): PinWorkerState {
    const faults = [...this.#faults.values()];
    return {
      ...this.#depth,
      inProgress: this.#inProgress.size,
      lastSuccessAt: this.#lastSuccessAt,
      fault: faults.length === 0 ? null : faults.join("; "),
    };
  }

  request(): () => void {
    this.#yielding.begins(performance.now());
    return () => this.#yielding.ends(performance.now());
  }

  wake(): void {
    this.#news.end();
  }

  /** Claims work for its free slots, one account after the other, and waits if there is none. */
  async #lane(phases: readonly Phase[], slots: number, pause: Pause): Promise<void> {
    const running = new Set<Work>();
    let cursor = "";
    let inRound = 0;
    let nextClaimAt = Number.NEGATIVE_INFINITY;
    while (!this.#stop.aborted) {
      const now = performance.now();
      const pausedMs = phases.includes("size") ? 0 : this.#clusterPausedUntil - now;
      const waitMs = Math.max(pausedMs, nextClaimAt - now, this.#yielding.waitMs(now));
      if (waitMs > 0) await new Pause().wait(waitMs, this.#stop);
      else if (running.size >= slots) await pause.wait(this.#pollMs, this.#stop);
      else if (!(await this.#mayWork())) await pause.wait(DATABASE_RETRY_MS, this.#stop);
      else {
        const found = await this.#claim(phases, slots - running.size, cursor, busyAccounts(running, slots));
        // A claim costs the database much. What it takes long for is asked for in larger parts.
        const claimedAt = performance.now();
        nextClaimAt = claimedAt + Math.max(CLAIM_EVERY_MS, claimedAt - now);
        if (found === null) {
          await pause.wait(DATABASE_RETRY_MS, this.#stop);
          continue;
        }
        for (const work of found.work) {
          running.add(work);
          const ended = this.#do(work).finally(() => {
            running.delete(work);
            this.#inProgress.delete(work);
            pause.end();
          });
          this.#inProgress.set(work, ended);
        }
        cursor = found.cursor;
        inRound += found.work.length;
        if (cursor !== "") continue;
        if (inRound === 0) await pause.wait(this.#pollMs, this.#stop);
        inRound = 0;
      }
    }
  }

  async #mayWork(): Promise<boolean> {
    try {
      const why = await this.#deps.heldBack();
      // Nothing else asks the database then.
      if (why !== null) this.#works("database");
      if (why === null) this.#works("trust");
      else this.#fails("trust", why);
      return why === null;
    } catch (thrown) {
      this.#fails("database", thrown);
      return false;
    }
  }

  async #claim(phases: readonly Phase[], limit: number, cursor: string, busy: readonly string[]) {
    const { pool } = this.#deps;
    try {
      const found = await claimWork(pool, {
        phases,
        limit,
        cursor,
        busy,
        claim: randomUUID(),
        leaseMs: this.#leaseMs,
        window: WINDOW,
        windows: this.#windows.all(),
        searches: SEARCHES,
        places: PLACES,
        first: performance.now() >= this.#firstAgainAt,
      });
      if (found.work.some(({ isFirst }) => isFirst)) this.#firstAgainAt = performance.now() + FIRST_EVERY_MS;
      this.#works("database");
      return found;
    } catch (thrown) {
      this.#fails("database", thrown);
      return null;
    }
  }

  /** Never throws. */
  async #do(work: Work): Promise<void> {
    try {
      const outcome = await this.#work.do(work);
      if (outcome !== null) await this.#outcomes.add(outcome);
      if (work.phase !== "size") this.#works("cluster");
      this.#lastSuccessAt = new Date();
    } catch (thrown) {
      this.#failsUnlessStopped(thrown);
      await this.#giveBack(work, thrown);
    }
  }

  /** Until the database takes it: otherwise the work would wait for the end of the claim. */
  async #giveBack(work: Work, thrown: unknown): Promise<void> {
    const isUnanswered = thrown instanceof Unanswered;
    const error = isUnanswered || thrown instanceof OperatorError ? messageOf(thrown) : work.lastError;
    for (;;) {
      const inMs = isUnanswered ? UNANSWERED_MS : this.#stop.aborted ? 0 : CLUSTER_RETRY_MS;
      try {
        if (isUnanswered) await lookAgain(this.#deps.pool, work.requestid, thrown.spellings);
        await this.#outcomes.add(putOff(work, { inMs, error }));
        return;
      } catch (refused) {
        if (this.#stop.aborted) return;
        this.#fails("database", refused);
        await new Pause().wait(DATABASE_RETRY_MS, this.#stop);
      }
    }
  }

  async #extend(): Promise<void> {
    if (this.#inProgress.size === 0) return;
    try {
      await extendClaims(this.#deps.pool, [...this.#inProgress.keys()], this.#leaseMs);
    } catch (thrown) {
      this.#fails("database", thrown);
    }
  }

  /** What upstream's pinning API left: it ran before, or on another master. */
  async #takeOver(deadlineMs: number): Promise<void> {
    const { pool, log } = this.#deps;
    const named = await untilNone(() => giveAccounts(pool), this.#stop);
    if (named > 0) log(`pin queue: ${named} requests that had only a name have its account now`);
    const taken = await untilNone(() => takeOver(pool, deadlineMs), this.#stop);
    if (taken > 0) log(`pin queue: took over ${taken} requests that nobody worked on`);
  }

  /** Compares the pins that are done with the cluster. */
  async #watch(): Promise<void> {
    const { pool, log } = this.#deps;
    if (!(await this.#mayWork())) return;
    const sent = await sendForgotten(pool, this.#cluster, this.#stop);
    if (sent > 0)
      log(`pin queue: ${sent} pins were no longer in the cluster's pinset: they are sent again`, "warn");
    await watchPins(pool, this.#cluster, this.#stop);
  }

  async #regularly(
    everyMs: number,
    what: () => Promise<void>,
    firstMs = 0,
    pause: Pause = new Pause(),
  ): Promise<void> {
    await pause.wait(firstMs, this.#stop);
    while (!this.#stop.aborted) {
      try {
        await what();
      } catch (thrown) {
        this.#failsUnlessStopped(thrown);
      }
      await pause.wait(everyMs, this.#stop);
    }
  }

  #failsUnlessStopped(thrown: unknown): void {
    const cause = thrown instanceof Unanswered ? thrown.cause : thrown;
    if (!this.#stop.aborted) this.#fails(cause instanceof OperatorError ? "cluster" : "database", cause);
  }

  /** Logs a fault when it begins. Several failures of the cluster in a row make everything wait for a moment. */
  #fails(what: "database" | "cluster" | "trust", thrown: unknown): void {
    const why = withoutCids(`${what}: ${messageOf(thrown)}`);
    if (!this.#faults.has(what)) this.#deps.log(`pin queue: ${why}`, "warn");
    this.#faults.set(what, why);
    if (what !== "cluster") return;
    this.#clusterFailures += 1;
    const pauseMs = this.#clusterFailures < 4 ? 0 : Math.min(2_000, 100 * this.#clusterFailures);
    this.#clusterPausedUntil = performance.now() + pauseMs;
  }

  #works(what: "database" | "cluster" | "trust"): void {
    if (what === "cluster") this.#clusterFailures = 0;
    if (!this.#faults.delete(what)) return;
    const says = what === "trust" ? "the other masters trust this one" : `the ${what} responds again`;
    this.#deps.log(`pin queue: ${says}`);
    if (what === "cluster") this.#clusterBack.end();
  }

  #noteInvented(status: string): void {
    if (this.#invented.has(status) || this.#invented.size >= 20) return;
    this.#invented.add(status);
    this.#deps.log(
      `pin queue: ipfs-cluster reports an unknown status, ${JSON.stringify(status)}: it counts as pinning`,
      "warn",
    );
  }
}
