import type { Cluster, PinAnswer } from "../cluster/client.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { messageOf } from "../errors.ts";
import { shareInFlight } from "../machine/file-reader.ts";
import { Batches, underContentLocks } from "./batches.ts";
import { areBlocked, BLOCKED } from "./blocked.ts";
import { judgeStatus, type Verdict } from "./cluster-status.ts";
import { contentOf, type ParsedCid, parseCid, spellingsOf } from "./content-id.ts";
import {
  type Asked,
  failed,
  type FailureReason,
  finished,
  held,
  type Outcome,
  pinned,
  putOff,
  queuedAgain,
  readSized,
  readStandings,
  sent,
  type Sized,
  type Standing,
  unwanted,
  waits,
  writeSizes,
} from "./outcomes.ts";
import { callFor, findPins, isOthers, ownershipOf } from "./pin-owner.ts";
import type { Work } from "./queue.ts";
import {
  fullSearchMs,
  keptMs,
  nextLookMs,
  recoverMs,
  restMs,
  searchMs,
  sizeLimitMs,
  sizeRetryMs,
  SOON_MS,
  TRIES_IN_A_ROW,
  type Windows,
} from "./turns.ts";

/** What the work on a request needs. */
export interface PinWorkDeps {
  readonly pool: PostgresPool;
  readonly cluster: Pick<Cluster, "allocation" | "status" | "pin" | "unpin" | "recover">;
  /** The size of a DAG in bytes, from kubo. Throws if kubo does not know it in time. */
  readonly dagSize: (cid: string, timeoutMs: number) => Promise<number>;
  /** False if the account has no credit for this pin. If it throws, nothing is sent. */
  readonly mayPin: (account: string) => Promise<boolean>;
  readonly windows: Windows;
  readonly leaseMs: number;
  /** A pin that the cluster accepted and does not have after this time is sent again. */
  readonly forgottenAfterMs: number;
  /** Waits, or returns earlier because of a stop. */
  readonly wait: (ms: number) => Promise<void>;
  /** Called with a status that this version does not know. */
  readonly onInvented: (status: string) => void;
  /** Called if the cluster does not answer to a look that need not be repeated. */
  readonly onUnanswered: (thrown: unknown) => void;
}

const BUSY_MS = 300;
const REFUSED_MS = 5_000;
/** How long a call that got no answer may take to have its effect. */
const LATE_MS = 3_000;
const NO_CREDIT_MS = 60_000;

const NO_CREDIT: FailureReason = {
  reason: "INSUFFICIENT_CREDITS",
  details: "The account has no credit for this pin. It waits until its deadline.",
};

/** last_error of what made room for others of its account before any node had found it. */
const NOT_FOUND_YET = "no node has found it yet";
const SEARCHED_AGAIN = "It is searched for again until its deadline.";
const IMPOSSIBLE = "the cluster can't be asked for this pin";

/** A call to the cluster for a content, which nobody else may call for meanwhile. */
interface Call<Result = unknown> extends Asked {
  /** Calls `begins` before a call that changes something. */
  readonly run: (standing: Standing, begins: () => void) => Promise<Result>;
}

/** What became of a call. `busy`: another process works on the content, or the claim is no longer ours. */
type Called<Result = unknown> =
  | { readonly kind: "done"; readonly result: Result }
  | { readonly kind: "busy" }
  | { readonly kind: "failed"; readonly thrown: unknown };

/** A call of which no answer came, or whose lock was lost meanwhile: its effect may come after somebody else's. */
export class Unanswered extends Error {
  readonly spellings: readonly string[];

  constructor(cause: unknown, cid: ParsedCid) {
    super(messageOf(cause), { cause });
    this.spellings = spellingsOf(cid);
  }
}

/** After so long, calls that have ended are answered, although others of their transaction go on. */
const LONG_MS = 200;

/** How many requests share a transaction that holds the locks of their contents, or a statement. */
const MOST = 32;
const ALONE = { most: MOST, atOnce: 1 };

/** Does what is next for requests that this process has claimed. What comes at once shares statements. */
export class PinWork {
  readonly #deps: PinWorkDeps;
  readonly #calls: Batches<Call, Called>;
  readonly #blocked: Batches<string, boolean>;
  readonly #sized: Batches<Asked, boolean>;
  readonly #sizes: Batches<Sized, boolean>;
  readonly #mayPinOnce = shareInFlight<boolean>();

  /** `transactions`: how many of them may be open at once while the cluster is called. */
  constructor(deps: PinWorkDeps, transactions: number) {
    const { pool, leaseMs } = deps;
    this.#deps = deps;
    this.#calls = new Batches((calls, answer) => callTogether(deps, calls, answer), {
      most: MOST,
      atOnce: transactions,
    });
    this.#blocked = new Batches((contents) => areBlocked(pool, contents), ALONE);
    this.#sized = new Batches(async (asked) => {
      const found = await readSized(pool, asked);
      return asked.map(({ work }) => found.has(work.requestid));
    }, ALONE);
    this.#sizes = new Batches((sized) => writeSizes(pool, leaseMs, sized), ALONE);
  }

  /**
   * Returns what became of it, which ends the claim once it is written; null: that is done already. Throws if the cluster
   * or the database does not answer; the claim then stays.
   */
  async do(work: Work): Promise<Outcome | null> {
    const cid = parseCid(work.cid);
    if (cid === null) {
      if (work.phase === "unpin") return finished(work);
      return failed(work, { reason: "INVALID_CID", details: "The CID can't be read." });
    }
    if (work.phase === "unpin") return this.#unpin(work, cid);
    if (work.status !== "queued" && work.status !== "pinning" && work.status !== "pinned")
      return unwanted(work);
    if (work.phase === "send") return this.#send(work, cid);
    return work.phase === "look" ? this.#look(work, cid) : this.#findSize(work, cid);
  }

  async #send(work: Work, cid: ParsedCid): Promise<Outcome> {
    const { mayPin, cluster } = this.#deps;
    if (await this.#blocked.add(contentOf(cid))) return failed(work, BLOCKED);
    if (!(await this.#mayPinOnce(work.account, () => mayPin(work.account)))) {
      const details = "The account had no credit for this pin until its deadline.";
      return work.isOverdue ? failed(work, { ...NO_CREDIT, details }) : held(work, NO_CREDIT_MS, NO_CREDIT);
    }
    const isLate = work.isOverdue && (hasFailed(work) || work.isCrowded || work.isFull);
    // Another request may have brought it in.
    if (isLate && judgeStatus(await cluster.status(cid.text)).verdict.kind !== "pinned")
      return hasFailed(work) ? failed(work, reasonOf(work)) : waits(work);
    const answer = await this.#call<PinAnswer | { readonly kind: "none" | "impossible" }>({
      work,
      cid,
      run: async (standing, begins) => {
        const call = callFor(work, cid, await findPins(cluster, cid), ownershipOf(cid, standing));
        if (call.kind !== "pin") return call;
        begins();
        return cluster.pin(call.path);
      },
    });
    if (answer === null) return putOff(work, { inMs: BUSY_MS, error: work.lastError });
    if (answer.kind === "done" || answer.kind === "none") return this.#lookSoon(work, cid);
    const { busy, message } = answer.kind === "refused" ? answer : { busy: false, message: IMPOSSIBLE };
    if (busy) return putOff(work, { inMs: REFUSED_MS, error: message });
    const attempts = work.attempts + 1;
    return putOff(work, { inMs: recoverMs(attempts), attempts, error: message });
  }

  /** Most pins need no further turn: the cluster has them at once. */
  async #lookSoon(work: Work, cid: ParsedCid): Promise<Outcome> {
    const { cluster, windows, wait, onInvented, onUnanswered } = this.#deps;
    const sentAt = performance.now();
    for (const atMs of SOON_MS) {
      await wait(sentAt + atMs - performance.now());
      try {
        const { verdict, invented } = judgeStatus(await cluster.status(cid.text));
        invented.forEach(onInvented);
        if (verdict.kind !== "pinned") continue;
        const sinceMs = performance.now() - sentAt;
        if (work.hasDeadline) windows.pinned(work.account, sinceMs);
        return pinned(work, sinceMs);
      } catch (thrown) {
        onUnanswered(thrown);
        break;
      }
    }
    return sent(work, nextLookMs(0), performance.now() - sentAt);
  }

  async #look(work: Work, cid: ParsedCid): Promise<Outcome> {
    const { cluster, windows, onInvented } = this.#deps;
    const { verdict, invented } = judgeStatus(await cluster.status(cid.text));
    invented.forEach(onInvented);
    const { account, sinceSentMs } = work;
    if (verdict.kind === "pinned") {
      if (work.hasDeadline) windows.pinned(account, sinceSentMs);
      return pinned(work);
    }
    if (work.hasDeadline && !(verdict.kind === "pinning" && verdict.isQueued))
      windows.waits(account, sinceSentMs);
    if (work.isOverdue && isKnown(verdict)) return failed(work, reasonOf(work, verdict));
    if (verdict.kind === "failing" || verdict.kind === "lost") return this.#tryAgain(work, cid, verdict);
    if (verdict.kind === "absent") return this.#sendAgain(work, cid);
    const isSearched = verdict.kind === "pinning" && !verdict.isQueued && work.hasDeadline;
    const notFound = { attempts: work.attempts + 1, error: NOT_FOUND_YET };
    if (isSearched && work.isFull && sinceSentMs > fullSearchMs(work.attempts))
      return this.#rest(work, cid, notFound);
    const isLong = isSearched && sinceSentMs > searchMs(work.attempts);
    const makesRoom = isLong && work.isWaitedFor && work.isCrowded;
    if (makesRoom && work.isSearchCrowded) return this.#rest(work, cid, notFound);
    const status = verdict.kind === "pinning" ? { status: "pinning" as const } : {};
    // One that nobody has tried before stays in the cluster, in a place of those that were.
    const attempts = work.attempts + (makesRoom ? 1 : 0);
    return putOff(work, { inMs: nextLookMs(sinceSentMs), attempts, error: work.lastError, ...status });
  }

  /** Several tries in a row, then a rest. */
  async #tryAgain(
    work: Work,
    cid: ParsedCid,
    verdict: Extract<Verdict, { kind: "failing" | "lost" }>,
  ): Promise<Outcome> {
    const attempts = work.attempts + 1;
    const error = verdict.kind === "failing" ? verdict.error : "no peer has it any more";
    const makesRoom =
      attempts % TRIES_IN_A_ROW === 0 || work.isFull || (work.isWaitedFor && work.isSearchCrowded);
    if (work.hasDeadline && makesRoom) return this.#rest(work, cid, { attempts, error });
    await this.#deps.cluster.recover(cid.text);
    return putOff(work, { inMs: recoverMs(attempts), attempts, error, status: "pinning" });
  }

  /** Some time outside of the cluster, which frees its place for others. */
  async #rest(
    work: Work,
    cid: ParsedCid,
    { attempts, error }: { readonly attempts: number; readonly error: string },
  ): Promise<Outcome> {
    const found =
      error === NOT_FOUND_YET || error === ""
        ? "No node has found it yet."
        : `No node could get it yet: ${error}.`;
    const why = { reason: "NOT_FOUND_YET", details: `${found} ${SEARCHED_AGAIN}` };
    if ((await this.#takeOut(work, cid)) === null) return putOff(work, { inMs: BUSY_MS, error });
    return queuedAgain(work, { inMs: restMs(attempts), attempts, error, why });
  }

  /** The cluster accepted it and does not have it: it lost it, or another master's peer has not heard of it yet. */
  async #sendAgain(work: Work, cid: ParsedCid): Promise<Outcome> {
    const { cluster, forgottenAfterMs } = this.#deps;
    const { sinceSentMs, attempts } = work;
    if (sinceSentMs < forgottenAfterMs || (await cluster.allocation(cid.text)) !== null)
      return putOff(work, { inMs: nextLookMs(sinceSentMs) });
    return queuedAgain(work, { inMs: 0, attempts, error: "the cluster no longer had it" });
  }

  /**
   * Not before what replaced the request has an outcome. While an earlier call may still have its effect, it is unpinned once
   * more later.
   */
  async #unpin(work: Work, cid: ParsedCid): Promise<Outcome> {
    const standing = await this.#takeOut(work, cid);
    if (standing === null) return putOff(work, { inMs: BUSY_MS, error: work.lastError });
    if (standing.isKept) return putOff(work, { inMs: keptMs(work.attempts), attempts: work.attempts + 1 });
    return standing.isWanted || !standing.isDoubtful ? finished(work) : putOff(work, { inMs: LATE_MS });
  }

  /**
   * Takes the content out of the cluster if no other request wants it, and leaves what no account pinned. Null if another
   * process works on it.
   */
  #takeOut(work: Work, cid: ParsedCid): Promise<Standing | null> {
    const { cluster } = this.#deps;
    return this.#call<Standing>({
      work,
      cid,
      run: async (standing, begins) => {
        if (standing.isWanted || standing.isKept) return standing;
        const owner = ownershipOf(cid, standing);
        for (const [spelling, pin] of await findPins(cluster, cid)) {
          if (pin !== null && isOthers(spelling, pin, owner)) continue;
          begins();
          await cluster.unpin(spelling);
        }
        return standing;
      },
    });
  }

  async #call<Result>(call: Call<Result>): Promise<Result | null> {
    const called = (await this.#calls.add(call)) as Called<Result>;
    if (called.kind === "failed") throw called.thrown;
    return called.kind === "done" ? called.result : null;
  }

  async #findSize(work: Work, cid: ParsedCid): Promise<Outcome | null> {
    if (await this.#sized.add({ work, cid })) return finished(work);
    const attempts = work.attempts + 1;
    let bytes: number;
    try {
      bytes = await this.#deps.dagSize(cid.text, sizeLimitMs(work.attempts));
    } catch (thrown) {
      return putOff(work, { inMs: sizeRetryMs(work.attempts), attempts, error: messageOf(thrown) });
    }
    return (await this.#sizes.add({ work, cid, bytes })) ? null : putOff(work, { inMs: BUSY_MS });
  }
}

/**
 * Makes calls for several contents, all at the same time, in one transaction that holds their locks. If it fails, what had
 * begun may have its effect later. If one of them takes long, the others are answered before it.
 */
async function callTogether(
  { pool, leaseMs }: PinWorkDeps,
  calls: readonly Call[],
  answer: (at: number, called: Called) => void,
): Promise<readonly Called[]> {
  const begun = new Set<Call>();
  const lost = (call: Call, thrown: unknown): Called => {
    return { kind: "failed", thrown: begun.has(call) ? new Unanswered(thrown, call.cid) : thrown };
  };
  const cids = calls.map(({ cid }) => cid);
  try {
    return await underContentLocks(pool, cids, leaseMs, async (database, isHeld) => {
      const standings = await readStandings(database, calls);
      const known = new Map<number, Called>();
      const all = calls.map(async (call, at): Promise<Called> => {
        const standing = standings[at];
        if (isHeld[at] !== true || standing?.isMine !== true) return { kind: "busy" };
        try {
          return { kind: "done", result: await call.run(standing, () => void begun.add(call)) };
        } catch (thrown) {
          return lost(call, thrown);
        }
      });
      all.forEach((one, at) => void one.then((called) => known.set(at, called)));
      const early = setInterval(() => {
        const ended = [...known];
        if (ended.length === 0) return;
        known.clear();
        // The transaction lives, so they had their locks up to the end. If it does not, the end of all says so.
        void database.query("SELECT 1").then(
          () => ended.forEach(([at, called]) => answer(at, called)),
          () => {},
        );
      }, LONG_MS);
      return Promise.all(all).finally(() => clearInterval(early));
    });
  } catch (thrown) {
    return calls.map((call) => lost(call, thrown));
  }
}

/** At the deadline a cluster that says nothing at all is no reason to fail a request. */
function isKnown(verdict: Verdict): boolean {
  return verdict.kind !== "unknown" || verdict.answered;
}

/** True if the content was searched for, and not found. A call without an answer does not count. */
function hasFailed({ attempts, lastError }: Work): boolean {
  return attempts >= TRIES_IN_A_ROW || lastError === NOT_FOUND_YET;
}

function reasonOf(work: Work, verdict?: Verdict): FailureReason {
  if (verdict?.kind === "failing" && verdict.error !== "")
    return { reason: "PIN_ERROR", details: `No node could get the content: ${verdict.error}` };
  if (work.lastError !== null && work.lastError !== NOT_FOUND_YET && hasFailed(work))
    return { reason: "PIN_ERROR", details: `No node could get the content: ${work.lastError}` };
  return { reason: "DEADLINE_EXCEEDED", details: "No node found the content in time." };
}
