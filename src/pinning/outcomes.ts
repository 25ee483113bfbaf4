import type { PostgresPool } from "../database/postgres.ts";
import { LAZILY, type Work } from "./queue.ts";

type Database = Pick<PostgresPool, "query">;

/**
 * The statements that end a claim. Each changes nothing if the claim is no longer ours: a worker that was stopped for too
 * long writes nothing. The row of pins is locked first, as in the statements of the API, so that they can't deadlock.
 */
function ending(name: string, work: string, request: string): Ending {
  const sql = `
    WITH request AS (SELECT requestid FROM pins WHERE requestid = $1 FOR UPDATE),
      locked AS (SELECT count(*), ${LAZILY} FROM request),
      mine AS (
        UPDATE pin_work w SET ${work}, claim = NULL, claimed_until = NULL
        FROM locked WHERE w.requestid = $1 AND w.claim = $2::uuid RETURNING w.requestid
      ), noted AS (
        UPDATE pins SET ${request} FROM mine
        WHERE pins.requestid = mine.requestid AND pins.status IN ('queued', 'pinning', 'pinned')
      )
    SELECT requestid FROM mine`;
  return { name, sql };
}

/** Prepared once by each connection: to plan it takes longer than to run it. */
interface Ending {
  readonly name: string;
  readonly sql: string;
}

const IN_MS = (parameter: string): string => `now() + ${parameter} * interval '1 millisecond'`;
const PUT_OFF = ending(
  "work-put-off",
  `due_at = ${IN_MS("$3")}, attempts = $4, last_error = $5`,
  "status = coalesce($6, status)",
);
const HELD = ending("work-held", `due_at = ${IN_MS("$3")}, last_error = $4`, "info = $5");
/** A deadline that passed before its turn came begins again. */
const SENT = ending(
  "work-sent",
  `sent_at = now(), due_at = ${IN_MS("$3")}, last_error = NULL,
   deadline_at = CASE WHEN deadline_at <= now() THEN now() + (deadline_at - accepted_at) ELSE deadline_at END`,
  "status = CASE WHEN status = 'pinned' THEN 'pinned' ELSE 'pinning' END, info = '{}'",
);
const PINNED = ending(
  "work-pinned",
  "pinned_at = now(), due_at = now(), attempts = 0, last_error = NULL",
  "status = 'pinned', info = '{}'",
);
const QUEUED = ending(
  "work-queued",
  `sent_at = NULL, pinned_at = NULL, due_at = least(${IN_MS("$3")}, greatest(deadline_at, now())),
   attempts = $4, last_error = $5`,
  "status = 'queued', info = coalesce($6, info)",
);
const FAILED = ending(
  "work-failed",
  "action = 'unpin', due_at = now(), attempts = 0, last_error = $4",
  "status = 'failed', info = $3",
);
const UNWANTED = ending("work-unwanted", "action = 'unpin', due_at = now()", "status = status");
const SIZED: Ending = {
  name: "work-sized",
  sql: `
  WITH request AS (SELECT requestid FROM pins WHERE requestid = $1 FOR UPDATE),
    locked AS (SELECT count(*), ${LAZILY} FROM request),
    mine AS (DELETE FROM pin_work w USING locked WHERE w.requestid = $1 AND w.claim = $2::uuid RETURNING w.requestid),
    noted AS (
      UPDATE pins SET size = $3 FROM mine WHERE pins.requestid = mine.requestid AND pins.status = 'pinned'
        AND NOT EXISTS (SELECT FROM pins o WHERE o.cid = ANY ($4::text[]) AND o.user_id = pins.user_id AND o.size > 0
                          AND o.status <> 'deleted' AND o.requestid <> pins.requestid)
    )
  SELECT requestid FROM mine`,
};
const FINISHED: Ending = {
  name: "work-finished",
  sql: `WITH lazily AS (SELECT ${LAZILY}), mine AS (
      DELETE FROM pin_work USING lazily WHERE requestid = $1 AND claim = $2::uuid RETURNING requestid)
    SELECT requestid FROM mine`,
};

/** The reason why a request failed, for the user. */
export interface FailureReason {
  readonly reason: string;
  readonly details: string;
}

async function end(
  database: Database,
  { name, sql }: Ending,
  work: Work,
  values: readonly unknown[],
): Promise<boolean> {
  return (await database.query(sql, [work.requestid, work.claim, ...values], { name })).length > 0;
}

/** Tries again later. */
export function putOff(
  database: Database,
  work: Work,
  next: {
    readonly inMs: number;
    readonly attempts?: number;
    readonly error?: string | null;
    /** The request's new status, if it has one. */
    readonly status?: "pinning";
  },
): Promise<boolean> {
  const { inMs, attempts = work.attempts, error = null, status = null } = next;
  return end(database, PUT_OFF, work, [inMs, attempts, error, status]);
}

/** Not now, and the user is told why. */
export function hold(database: Database, work: Work, inMs: number, why: FailureReason): Promise<boolean> {
  return end(database, HELD, work, [inMs, why.reason, JSON.stringify(why)]);
}

/** The cluster has accepted it. */
export function markSent(database: Database, work: Work, lookInMs: number): Promise<boolean> {
  return end(database, SENT, work, [lookInMs]);
}

/** A peer has it. Its size is next. */
export function markPinned(database: Database, work: Work): Promise<boolean> {
  return end(database, PINNED, work, []);
}

/** It must be sent again. */
export function queueAgain(
  database: Database,
  work: Work,
  next: {
    /** It gets no later than its deadline. */
    readonly inMs: number;
    readonly attempts: number;
    readonly error: string | null;
    /** Why it waits, for the user. */
    readonly why?: FailureReason;
  },
): Promise<boolean> {
  const { inMs, attempts, error, why } = next;
  return end(database, QUEUED, work, [inMs, attempts, error, why === undefined ? null : JSON.stringify(why)]);
}

/** It is failed. What the cluster has of it is next. */
export function markFailed(database: Database, work: Work, why: FailureReason): Promise<boolean> {
  return end(database, FAILED, work, [JSON.stringify(why), why.reason]);
}

/** Its request is no longer active. What the cluster has of it is next. */
export function markUnwanted(database: Database, work: Work): Promise<boolean> {
  return end(database, UNWANTED, work, []);
}

/** Nothing is left to do. */
export function finish(database: Database, work: Work): Promise<boolean> {
  return end(database, FINISHED, work, []);
}

/** Its size is known; one of the account's requests for this content carries it. Call it under the content's lock. */
export function markSized(
  database: Database,
  work: Work,
  sizeBytes: number,
  spellings: readonly string[],
): Promise<boolean> {
  return end(database, SIZED, work, [sizeBytes, spellings]);
}

/** What has to be known about a request under the lock of its content. */
export interface Standing {
  /** True if the claim still is ours. */
  readonly isMine: boolean;
  /** True if another active request, of any account, has this content. */
  readonly isWanted: boolean;
  /** True if a call for this content got no answer, and may still have its effect. */
  readonly isDoubtful: boolean;
}

/** Reads it with a new snapshot. */
export async function readStanding(
  database: Database,
  work: Work,
  spellings: readonly string[],
): Promise<Standing> {
  const [row] = await database.query<{ isMine: boolean; isWanted: boolean; isDoubtful: boolean }>(
    `SELECT EXISTS (SELECT FROM pin_work WHERE requestid = $1 AND claim = $2::uuid) AS "isMine",
       EXISTS (SELECT FROM pins WHERE cid = ANY ($3::text[]) AND requestid <> $1
                 AND status IN ('queued', 'pinning', 'pinned')) AS "isWanted",
       EXISTS (SELECT FROM pin_doubts WHERE cid = $4 AND until > now()) AS "isDoubtful"`,
    [work.requestid, work.claim, spellings, spellings[0]],
    { name: "work-standing" },
  );
  return row ?? { isMine: false, isWanted: true, isDoubtful: true };
}

/** True if one of the account's requests for this content has a size. */
export async function hasSize(
  database: Database,
  work: Work,
  spellings: readonly string[],
): Promise<boolean> {
  const rows = await database.query(
    `SELECT FROM pins o JOIN pins mine ON mine.requestid = $1
     WHERE o.cid = ANY ($2::text[]) AND o.user_id = mine.user_id AND o.size > 0 AND o.status <> 'deleted' LIMIT 1`,
    [work.requestid, spellings],
    { name: "work-has-size" },
  );
  return rows.length > 0;
}
