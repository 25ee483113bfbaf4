import type { PostgresPool } from "../database/postgres.ts";
import { databaseErrorOf } from "../database/session.ts";
import { underContentLocks } from "./batches.ts";
import { type ParsedCid, spellingsOf } from "./content-id.ts";
import { isKept, wasPinned } from "./pin-sql.ts";
import { LAZILY, type Work } from "./queue.ts";

type Database = Pick<PostgresPool, "query">;

/** What became of a request's work: what its rows have after it. It ends the claim. */
export interface Outcome {
  readonly requestid: string;
  readonly claim: string;
  /** True: nothing is left to do, and there is no row any more. */
  readonly isDone: boolean;
  readonly action: "unpin" | null;
  /** When it is due again. */
  readonly inMs: number;
  /** It is due no later than at its deadline. */
  readonly isCapped: boolean;
  /** It keeps its place among the requests of its account, and its deadline begins again. */
  readonly keepsPlace: boolean;
  readonly attempts: number;
  readonly error: string | null;
  /** `now`: the cluster has accepted it, so many milliseconds ago. `never`: it must be sent. Null: as it was. */
  readonly sent: "now" | "never" | null;
  readonly sentMs: number;
  readonly isPinned: boolean;
  /** The request's new status. Null: as it was. */
  readonly status: "queued" | "pinning" | "pinned" | "failed" | null;
  /** A request that is pinned stays so. */
  readonly staysPinned: boolean;
  /** JSON, for the user. Null: as it was. */
  readonly info: string | null;
}

/** The reason why a request failed, for the user. */
export interface FailureReason {
  readonly reason: string;
  readonly details: string;
}

function outcome(work: Work, changes: Partial<Outcome>): Outcome {
  return {
    requestid: work.requestid,
    claim: work.claim,
    isDone: false,
    action: null,
    inMs: 0,
    isCapped: false,
    keepsPlace: false,
    attempts: work.attempts,
    error: work.lastError,
    sent: null,
    sentMs: 0,
    isPinned: false,
    status: null,
    staysPinned: false,
    info: null,
    ...changes,
  };
}

/** It is tried again later. */
export function putOff(
  work: Work,
  next: {
    readonly inMs: number;
    readonly attempts?: number;
    readonly error?: string | null;
    /** The request's new status, if it has one. */
    readonly status?: "pinning";
  },
): Outcome {
  return outcome(work, { error: null, ...next });
}

/** Not now, and the user is told why. */
export function held(work: Work, inMs: number, why: FailureReason): Outcome {
  return outcome(work, { inMs, error: why.reason, info: JSON.stringify(why) });
}

const NOT_YET: FailureReason = {
  reason: "WAITS_FOR_ITS_TURN",
  details: "Other content is searched for before it. Its deadline begins with its first turn.",
};

/** Its deadline has passed, and its turn has not come. */
export function waits(work: Work): Outcome {
  return outcome(work, { keepsPlace: true, info: JSON.stringify(NOT_YET) });
}

/** The cluster has accepted it, so long ago. For what was not tried before, the deadline begins now. */
export function sent(work: Work, lookInMs: number, sentMs = 0): Outcome {
  return outcome(work, {
    inMs: lookInMs,
    error: null,
    sent: "now",
    sentMs,
    status: "pinning",
    staysPinned: true,
    info: "{}",
  });
}

/** A peer has it. Its size is next. `sentMs`: the cluster accepted it so long ago, and that was not written yet. */
export function pinned(work: Work, sentMs?: number): Outcome {
  const since = sentMs === undefined ? {} : { sent: "now" as const, sentMs };
  return outcome(work, { ...since, attempts: 0, error: null, isPinned: true, status: "pinned", info: "{}" });
}

/** It must be sent again. */
export function queuedAgain(
  work: Work,
  next: {
    /** It gets no later than its deadline. */
    readonly inMs: number;
    readonly attempts: number;
    readonly error: string | null;
    /** Why it waits, for the user. */
    readonly why?: FailureReason;
  },
): Outcome {
  const { inMs, attempts, error, why } = next;
  const info = why === undefined ? null : JSON.stringify(why);
  return outcome(work, { inMs, isCapped: true, attempts, error, sent: "never", status: "queued", info });
}

/** It is failed. What the cluster has of it is next. */
export function failed(work: Work, why: FailureReason): Outcome {
  const info = JSON.stringify(why);
  return outcome(work, { action: "unpin", attempts: 0, error: why.reason, status: "failed", info });
}

/** Its request is no longer active. What the cluster has of it is next. */
export function unwanted(work: Work): Outcome {
  return outcome(work, { action: "unpin" });
}

/** Nothing is left to do. */
export function finished(work: Work): Outcome {
  return outcome(work, { isDone: true });
}

/**
 * Writes what became of several requests. It changes nothing of a request whose claim is no longer ours: a worker that was
 * stopped for too long writes nothing. The rows of pins are locked first, in the order of the statements of the API, so
 * that they can't deadlock. If PostgreSQL refuses them together, each is written alone. `deadlineMs` is the most for a
 * deadline that begins again. Returns what it was given.
 */
export async function writeOutcomes(
  database: Database,
  outcomes: readonly Outcome[],
  deadlineMs: number,
): Promise<readonly Outcome[]> {
  try {
    // Not prepared: a plan from when the tables were small would be kept.
    await database.query(WRITE, [storable(outcomes), deadlineMs]);
  } catch (thrown) {
    if (databaseErrorOf(thrown) === null || outcomes.length === 1) throw thrown;
    const refused: unknown[] = [];
    for (const one of outcomes)
      await database.query(WRITE, [storable([one]), deadlineMs]).catch((why) => refused.push(why));
    if (refused.length > 0) throw refused[0];
  }
  return outcomes;
}

/** As JSON that PostgreSQL can store as text: what a server says can have NUL and lone surrogates. */
function storable(outcomes: readonly Outcome[]): string {
  return JSON.stringify(outcomes, (_, value: unknown) =>
    typeof value === "string" ? value.replaceAll("\0", "").replace(/\p{Surrogate}/gu, "\ufffd") : value,
  );
}

const WRITE = `
  WITH o AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS o (requestid text, claim uuid, "isDone" boolean, action text,
      "inMs" float8, "isCapped" boolean, "keepsPlace" boolean, attempts integer, error text, sent text, "sentMs" float8, "isPinned" boolean,
      status text, "staysPinned" boolean, info text)
  ), requests AS MATERIALIZED (
    SELECT id FROM pins WHERE requestid IN (SELECT requestid FROM o) ORDER BY id FOR UPDATE
  ), locked AS MATERIALIZED (SELECT count(*), ${LAZILY} FROM requests),
  mine AS (
    UPDATE pin_work w SET claim = NULL, claimed_until = NULL, attempts = o.attempts, last_error = o.error,
      action = coalesce(o.action, w.action),
      due_at = CASE WHEN o."keepsPlace" THEN w.accepted_at WHEN o."isCapped" THEN least(now() + o."inMs" * interval '1 ms', greatest(w.deadline_at, now()))
        ELSE now() + o."inMs" * interval '1 ms' END,
      sent_at = CASE o.sent WHEN 'now' THEN now() - o."sentMs" * interval '1 ms' WHEN 'never' THEN NULL ELSE w.sent_at END,
      pinned_at = CASE WHEN o."isPinned" THEN now() WHEN o.sent = 'never' THEN NULL ELSE w.pinned_at END,
      deadline_at = CASE WHEN o."keepsPlace"
          OR o.sent = 'now' AND (w.deadline_at <= now() OR w.attempts = 0 AND w.sent_at IS NULL AND w.deadline_at < 'infinity')
        THEN now() + least(w.deadline_at - w.accepted_at, $2::float8 * interval '1 ms')
        ELSE w.deadline_at END
    FROM o, locked WHERE w.requestid = o.requestid AND w.claim = o.claim AND NOT o."isDone"
    RETURNING w.requestid, w.deadline_at < 'infinity' AS "isNew"
  ), done AS (
    DELETE FROM pin_work w USING o, locked WHERE w.requestid = o.requestid AND w.claim = o.claim AND o."isDone"
  )
  UPDATE pins SET info = coalesce(CASE WHEN o.status = 'failed' AND pins.size > 0 THEN (
        SELECT (o.info::jsonb || jsonb_build_object('stillPinned', kept.cid))::text FROM pin_work kept
        WHERE kept.waits_for = pins.requestid LIMIT 1) END, o.info, pins.info),
    size = CASE WHEN o."isPinned" AND mine."isNew" THEN 0 ELSE pins.size END,
    status = CASE WHEN o."staysPinned" AND pins.status = 'pinned' THEN 'pinned' ELSE coalesce(o.status, pins.status) END
  FROM mine JOIN o ON o.requestid = mine.requestid
  WHERE pins.requestid = mine.requestid AND pins.status IN ('queued', 'pinning', 'pinned')
    AND (o.status IS NOT NULL OR o.info IS NOT NULL)`;

/** A request for a content. */
export interface Asked {
  readonly work: Work;
  readonly cid: ParsedCid;
}

/** What has to be known about a request under the lock of its content. */
export interface Standing {
  /** True if the claim still is ours. */
  readonly isMine: boolean;
  /** True if another active request, of any account, has this content, or one that was replaced keeps it. */
  readonly isWanted: boolean;
  /** True if it is kept until what replaced its request has an outcome. */
  readonly isKept: boolean;
  /** True if a call for this content got no answer, and may still have its effect. */
  readonly isDoubtful: boolean;
  /** The mark of this database (migration 030). */
  readonly mark: string;
  /**
   * The spellings whose pin can be an account's without the mark: a request whose pin need not have it has that spelling,
   * an active one, or for an unpin the one that ended. Of other ended requests nothing is left: a pin without a mark came
   * later.
   */
  readonly unmarked: readonly string[];
}

/** Reads it for several requests, with a new snapshot, in their order. */
export async function readStandings(
  database: Database,
  asked: readonly Asked[],
): Promise<readonly Standing[]> {
  const rows = await database.query<Standing & { nth: number; [column: string]: unknown }>(STANDINGS, [
    JSON.stringify(
      asked.map(({ work: { requestid, claim, phase }, cid }, nth) => {
        return { nth, requestid, claim, isEnding: phase !== "send", spellings: spellingsOf(cid) };
      }),
    ),
  ]);
  const standings = new Map(rows.map((row) => [row.nth, row]));
  return asked.map((_, nth) => {
    const standing = standings.get(nth);
    if (standing === undefined || standing.mark === null) throw new Error("the table pin_mark has no row");
    return standing;
  });
}

/** Counts: for EXISTS, the planner takes an index on the status and hopes to find the content in it soon. */
const STANDINGS = `
  SELECT a.nth, (SELECT mark::text FROM pin_mark) AS mark,
    (SELECT count(*) > 0 FROM pin_work w WHERE w.requestid = a.requestid AND w.claim = a.claim) AS "isMine",
    (SELECT count(*) > 0 FROM pins p WHERE p.cid = ANY (a.spellings) AND p.requestid <> a.requestid
       AND p.status IN ('queued', 'pinning', 'pinned'))
     OR a."isEnding" AND (SELECT count(*) > 0 FROM pin_work k WHERE k.cid = ANY (a.spellings) AND k.waits_for IS NOT NULL
       AND k.requestid <> a.requestid AND ${isKept("k")}) AS "isWanted",
    a."isEnding" AND (SELECT count(*) > 0 FROM pin_work k WHERE k.requestid = a.requestid AND ${isKept("k")}) AS "isKept",
    (SELECT count(*) > 0 FROM pin_doubts d WHERE d.cid = a.spellings[1] AND d.until > now()) AS "isDoubtful",
    ARRAY(SELECT DISTINCT p.cid FROM pins p WHERE p.cid = ANY (a.spellings) AND p.requestid NOT LIKE 'fn-%'
            AND (a."isEnding" AND p.requestid = a.requestid
                 OR NOT a."isEnding" AND (p.status IN ('queued', 'pinning', 'pinned') OR EXISTS (
                   SELECT FROM pin_work k WHERE k.requestid = p.requestid AND k.waits_for IS NOT NULL)))) AS unmarked
  FROM jsonb_to_recordset($1::jsonb)
    AS a (nth integer, requestid text, claim uuid, "isEnding" boolean, spellings text[])`;

/** Those whose account has another request for the same content, which has a size: requestids. */
export async function readSized(database: Database, asked: readonly Asked[]): Promise<ReadonlySet<string>> {
  const rows = await database.query<{ requestid: string }>(
    `SELECT a.requestid FROM jsonb_to_recordset($1::jsonb) AS a (requestid text, spellings text[])
     WHERE (SELECT count(*) > 0 FROM pins p WHERE p.cid = ANY (a.spellings) AND p.size > 0 AND ${wasPinned("p")}
              AND p.user_id = (SELECT user_id FROM pins mine WHERE mine.requestid = a.requestid))`,
    [sizesOf(asked)],
  );
  return new Set(rows.map(({ requestid }) => requestid));
}

/** A request whose size is known. */
export interface Sized extends Asked {
  readonly bytes: number;
}

/**
 * Writes sizes, and ends their work: one of an account's requests for a content carries its size. False where another
 * process works on the content just now, or another request of this batch has it: nothing is written then.
 */
export async function writeSizes(
  pool: Pick<PostgresPool, "transaction">,
  leaseMs: number,
  sized: readonly Sized[],
): Promise<readonly boolean[]> {
  const cids = sized.map(({ cid }) => cid);
  return underContentLocks(pool, cids, leaseMs, async (database, isHeld) => {
    const mine = sized.filter((_, at) => isHeld[at]);
    if (mine.length > 0) await database.query(SIZES, [sizesOf(mine)]);
    return isHeld;
  });
}

function sizesOf(asked: readonly (Asked & { readonly bytes?: number })[]): string {
  return JSON.stringify(
    asked.map(({ work: { requestid, claim }, cid, bytes }) => {
      return { requestid, claim, bytes, spellings: spellingsOf(cid) };
    }),
  );
}

const SIZES = `
  WITH o AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS o (requestid text, claim uuid, bytes bigint, spellings text[])
  ), requests AS MATERIALIZED (
    SELECT id FROM pins WHERE requestid IN (SELECT requestid FROM o) ORDER BY id FOR UPDATE
  ), locked AS MATERIALIZED (SELECT count(*), ${LAZILY} FROM requests),
  mine AS (
    DELETE FROM pin_work w USING o, locked WHERE w.requestid = o.requestid AND w.claim = o.claim RETURNING w.requestid
  )
  UPDATE pins SET size = o.bytes FROM mine JOIN o ON o.requestid = mine.requestid
  WHERE pins.requestid = mine.requestid AND pins.status = 'pinned'
    AND (SELECT count(*) = 0 FROM pins other WHERE other.cid = ANY (o.spellings) AND other.user_id = pins.user_id
           AND other.size > 0 AND ${wasPinned("other")} AND other.requestid <> pins.requestid)`;
