import type { Cluster, PinAnswer } from "../cluster/client.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { messageOf } from "../errors.ts";
import { judgeStatus, type Verdict } from "./cluster-status.ts";
import { BLOCKED, isBlocked } from "./blocked.ts";
import { underContentLock } from "./content-lock.ts";
import { contentOf, type ParsedCid, parseCid, spellingsOf } from "./content-id.ts";
import {
  type FailureReason,
  finish,
  hasSize,
  hold,
  markFailed,
  markPinned,
  markSent,
  markSized,
  markUnwanted,
  putOff,
  queueAgain,
  readStanding,
  type Standing,
} from "./outcomes.ts";
import { callFor, findPins, isOthers, readOwnership } from "./pin-owner.ts";
import { lookAgain, type Work } from "./queue.ts";
import {
  fullSearchMs,
  nextLookMs,
  recoverMs,
  restMs,
  searchMs,
  sizeLimitMs,
  sizeRetryMs,
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
  /** Called with a status that this version does not know. */
  readonly onInvented: (status: string) => void;
}

const BUSY_MS = 300;
const REFUSED_MS = 5_000;
const UNANSWERED_MS = 2_000;
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

/**
 * Does what is next for a request that this process has claimed, and ends the claim. Throws if the cluster or the database
 * does not answer; the claim then stays.
 */
export async function doWork(work: Work, deps: PinWorkDeps): Promise<void> {
  const { pool } = deps;
  const cid = parseCid(work.cid);
  if (cid === null) {
    if (work.phase === "unpin") return void (await finish(pool, work));
    return void (await markFailed(pool, work, { reason: "INVALID_CID", details: "The CID can't be read." }));
  }
  if (work.phase === "unpin") return unpin(work, cid, deps);
  if (work.status !== "queued" && work.status !== "pinning" && work.status !== "pinned")
    return void (await markUnwanted(pool, work));
  if (work.phase === "send") return send(work, cid, deps);
  return work.phase === "look" ? look(work, cid, deps) : findSize(work, cid, deps);
}

async function send(work: Work, cid: ParsedCid, deps: PinWorkDeps): Promise<void> {
  const { pool, mayPin, leaseMs } = deps;
  if (await isBlocked(pool, contentOf(cid))) return void (await markFailed(pool, work, BLOCKED));
  if (!(await mayPin(work.account))) {
    const details = "The account had no credit for this pin until its deadline.";
    if (work.isOverdue) await markFailed(pool, work, { ...NO_CREDIT, details });
    else await hold(pool, work, NO_CREDIT_MS, NO_CREDIT);
    return;
  }
  const isTooLate = work.isOverdue && (hasFailed(work) || work.isCrowded);
  // Another request may have brought it in.
  if (isTooLate && judgeStatus(await deps.cluster.status(cid.text)).verdict.kind !== "pinned")
    return void (await markFailed(pool, work, reasonOf(work)));
  let isBegun = false;
  const result = underContentLock(pool, cid, leaseMs, async (database) => {
    const { isMine } = await readStanding(database, work, spellingsOf(cid));
    if (!isMine) return;
    const found = await findPins(deps.cluster, cid);
    const call = callFor(work, cid, found, await readOwnership(database, cid));
    isBegun = call.kind === "pin";
    await noteAnswer(database, work, call.kind === "pin" ? await deps.cluster.pin(call.path) : call);
  });
  if ((await settled(result, () => isBegun, work, cid, deps)) === null)
    await putOff(pool, work, { inMs: BUSY_MS, error: work.lastError });
}

const IMPOSSIBLE = "the cluster can't be asked for this pin";

async function noteAnswer(
  database: Pick<PostgresPool, "query">,
  work: Work,
  answer: PinAnswer | { readonly kind: "none" | "impossible" },
): Promise<void> {
  const refused = answer.kind === "refused" ? answer : { busy: false, message: IMPOSSIBLE };
  if (answer.kind === "done" || answer.kind === "none") await markSent(database, work, nextLookMs(0));
  else if (refused.busy) await putOff(database, work, { inMs: REFUSED_MS, error: refused.message });
  else {
    const attempts = work.attempts + 1;
    await putOff(database, work, { inMs: recoverMs(attempts), attempts, error: refused.message });
  }
}

async function look(work: Work, cid: ParsedCid, deps: PinWorkDeps): Promise<void> {
  const { pool, cluster, windows, onInvented } = deps;
  const { verdict, invented } = judgeStatus(await cluster.status(cid.text));
  invented.forEach(onInvented);
  const { account, sinceSentMs } = work;
  if (verdict.kind === "pinned") {
    if (work.hasDeadline) windows.pinned(account, sinceSentMs);
    return void (await markPinned(pool, work));
  }
  if (work.hasDeadline && !(verdict.kind === "pinning" && verdict.isQueued))
    windows.waits(account, sinceSentMs);
  if (work.isOverdue && isKnown(verdict)) return void (await markFailed(pool, work, reasonOf(work, verdict)));
  if (verdict.kind === "failing" || verdict.kind === "lost") return tryAgain(work, cid, verdict, deps);
  if (verdict.kind === "absent") return sendAgain(work, cid, deps);
  const isSearched = verdict.kind === "pinning" && !verdict.isQueued && work.hasDeadline;
  if (isSearched && work.isFull && sinceSentMs > fullSearchMs(work.attempts))
    return rest(work, cid, { attempts: work.attempts + 1, error: NOT_FOUND_YET }, deps);
  const isLong = isSearched && sinceSentMs > searchMs(work.attempts);
  const makesRoom = isLong && work.isWaitedFor && work.isCrowded;
  if (makesRoom && work.isSearchCrowded)
    return rest(work, cid, { attempts: work.attempts + 1, error: NOT_FOUND_YET }, deps);
  const status = verdict.kind === "pinning" ? { status: "pinning" as const } : {};
  // One that nobody has tried before stays in the cluster, in a place of those that were.
  const attempts = work.attempts + (makesRoom ? 1 : 0);
  await putOff(pool, work, { inMs: nextLookMs(sinceSentMs), attempts, error: work.lastError, ...status });
}

/** At the deadline a cluster that says nothing at all is no reason to fail a request. */
function isKnown(verdict: Verdict): boolean {
  return verdict.kind !== "unknown" || verdict.answered;
}

/** Several tries in a row, then a rest. */
async function tryAgain(
  work: Work,
  cid: ParsedCid,
  verdict: Extract<Verdict, { kind: "failing" | "lost" }>,
  deps: PinWorkDeps,
): Promise<void> {
  const { pool, cluster } = deps;
  const attempts = work.attempts + 1;
  const error = verdict.kind === "failing" ? verdict.error : "no peer has it any more";
  const makesRoom =
    attempts % TRIES_IN_A_ROW === 0 || work.isFull || (work.isWaitedFor && work.isSearchCrowded);
  if (!work.hasDeadline || !makesRoom) {
    await cluster.recover(cid.text);
    await putOff(pool, work, { inMs: recoverMs(attempts), attempts, error, status: "pinning" });
    return;
  }
  await rest(work, cid, { attempts, error }, deps);
}

/** Some time outside of the cluster, which frees its place for others. */
async function rest(
  work: Work,
  cid: ParsedCid,
  { attempts, error }: { readonly attempts: number; readonly error: string },
  deps: PinWorkDeps,
): Promise<void> {
  const found =
    error === NOT_FOUND_YET || error === ""
      ? "No node has found it yet."
      : `No node could get it yet: ${error}.`;
  const why = { reason: "NOT_FOUND_YET", details: `${found} ${SEARCHED_AGAIN}` };
  const rested = await takeOut(work, cid, deps, (database) =>
    queueAgain(database, work, { inMs: restMs(attempts), attempts, error, why }),
  );
  if (rested === null) await putOff(deps.pool, work, { inMs: BUSY_MS, error });
}

/** The cluster accepted it and does not have it: it lost it, or another master's peer has not heard of it yet. */
async function sendAgain(work: Work, cid: ParsedCid, deps: PinWorkDeps): Promise<void> {
  const { pool, cluster, forgottenAfterMs } = deps;
  const { sinceSentMs, attempts } = work;
  if (sinceSentMs < forgottenAfterMs || (await cluster.allocation(cid.text)) !== null)
    await putOff(pool, work, { inMs: nextLookMs(sinceSentMs) });
  else await queueAgain(pool, work, { inMs: 0, attempts, error: "the cluster no longer had it" });
}

/** While an earlier call may still have its effect, it is unpinned once more later. */
async function unpin(work: Work, cid: ParsedCid, deps: PinWorkDeps): Promise<void> {
  const done = await takeOut(work, cid, deps, async (database, { isWanted, isDoubtful }) => {
    if (isWanted || !isDoubtful) await finish(database, work);
    else await putOff(database, work, { inMs: LATE_MS });
  });
  if (done === null) await putOff(deps.pool, work, { inMs: BUSY_MS, error: work.lastError });
}

/**
 * Takes the content out of the cluster if no other request wants it, and leaves what no account pinned. Null if another
 * process works on it.
 */
async function takeOut(
  work: Work,
  cid: ParsedCid,
  deps: PinWorkDeps,
  then: (database: Pick<PostgresPool, "query">, standing: Standing) => Promise<unknown>,
): Promise<true | null> {
  let isBegun = false;
  const result = underContentLock(deps.pool, cid, deps.leaseMs, async (database) => {
    const standing = await readStanding(database, work, spellingsOf(cid));
    if (!standing.isMine) return;
    if (!standing.isWanted) {
      const found = await findPins(deps.cluster, cid);
      const owner = await readOwnership(database, cid, work);
      for (const [spelling, pin] of found) {
        if (pin !== null && isOthers(spelling, pin, owner)) continue;
        isBegun = true;
        await deps.cluster.unpin(spelling);
      }
    }
    await then(database, standing);
  });
  return settled(result, () => isBegun, work, cid, deps);
}

/** If no answer comes, or the lock is lost meanwhile, the effect may come after somebody else's. */
async function settled(
  result: Promise<unknown>,
  isBegun: () => boolean,
  work: Work,
  cid: ParsedCid,
  { pool }: PinWorkDeps,
): Promise<true | null> {
  try {
    return (await result) === null ? null : true;
  } catch (thrown) {
    if (isBegun()) {
      await lookAgain(pool, work.requestid, spellingsOf(cid));
      await putOff(pool, work, { inMs: UNANSWERED_MS, error: messageOf(thrown) });
    }
    throw thrown;
  }
}

async function findSize(work: Work, cid: ParsedCid, deps: PinWorkDeps): Promise<void> {
  const { pool, dagSize, leaseMs } = deps;
  const spellings = spellingsOf(cid);
  if (await hasSize(pool, work, spellings)) return void (await finish(pool, work));
  const attempts = work.attempts + 1;
  let size: number;
  try {
    size = await dagSize(cid.text, sizeLimitMs(work.attempts));
  } catch (thrown) {
    await putOff(pool, work, { inMs: sizeRetryMs(work.attempts), attempts, error: messageOf(thrown) });
    return;
  }
  const written = await underContentLock(pool, cid, leaseMs, (database) =>
    markSized(database, work, size, spellings),
  );
  if (written === null) await putOff(pool, work, { inMs: BUSY_MS });
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
  if (work.phase === "send" && !hasFailed(work))
    return {
      reason: "DEADLINE_EXCEEDED",
      details: "Its turn did not come: content of other requests of this account could not be found in time.",
    };
  return { reason: "DEADLINE_EXCEEDED", details: "No node found the content in time." };
}
