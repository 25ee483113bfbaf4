import { accountOfName } from "../accounts/sessions.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { searchMs } from "./turns.ts";

type Database = Pick<PostgresPool, "query">;

/** What has to be done next for a request (024_pin_work.sql). */
export type Phase = "send" | "look" | "size" | "unpin";

/** A row of pin_work that this process has claimed, with its request. */
export interface Work {
  readonly requestid: string;
  readonly account: string;
  readonly cid: string;
  readonly phase: Phase;
  readonly claim: string;
  readonly attempts: number;
  readonly lastError: string | null;
  /** True if the deadline has passed. */
  readonly isOverdue: boolean;
  /** False: it was pinned once, and never becomes failed. */
  readonly hasDeadline: boolean;
  /** The time since the cluster accepted it. */
  readonly sinceSentMs: number;
  /** True if the account has as many pins on their way as it may have: new ones, or those that were tried before. */
  readonly isCrowded: boolean;
  /** The same, for those that were tried before. */
  readonly isSearchCrowded: boolean;
  /** True if another request of the account waits for its turn. */
  readonly isWaitedFor: boolean;
  /** True if it is the first one of its account, in the place for those. */
  readonly isFirst: boolean;
  /** True if accounts like this one have as many on their way as all of them may have, and another account waits. */
  readonly isFull: boolean;
  /** pins.status; null if the request is gone. */
  readonly status: string | null;
  /** JSON. */
  readonly origins: string;
}

/** What a claim found, and where the next one goes on. */
export interface Claimed {
  readonly work: readonly Work[];
  /** The account after which the next claim begins; "" once every account had its turn. */
  readonly cursor: string;
}

/** What a claim asks for. */
export interface ClaimOptions {
  readonly phases: readonly Phase[];
  /** The most rows. */
  readonly limit: number;
  /** Begin after this account. */
  readonly cursor: string;
  /** Accounts that get nothing now. */
  readonly busy: readonly string[];
  readonly claim: string;
  readonly leaseMs: number;
  /** How many pins of an account may be on their way, and the exceptions by account. */
  readonly window: number;
  readonly windows: Readonly<Record<string, number>>;
  /** How many that were tried before may be on their way beside them. */
  readonly searches: number;
  /** How many may be on their way in all, of the accounts that are no exception. */
  readonly places: number;
  /** True: one more may be, if it is the first one of its account. */
  readonly first: boolean;
}

/**
 * In a statement of the queue: its transaction does not wait for the disk. A crash of PostgreSQL can take back the last such
 * transactions, and always the newest ones first: what a client was told is older than what the queue then did about it, and
 * waited for the disk together with all that was before it. What the queue had noted of its own work is found again: the
 * cluster is asked, told to pin what it has, or to unpin what it no longer has.
 */
export const LAZILY = "set_config('synchronous_commit', 'off', true)";

/** Accounts that one claim looks at. */
const ACCOUNTS_AT_ONCE = 128;
/** The most rows of one account in one claim. */
const ROWS_OF_ACCOUNT = 32;

/**
 * Claims due work: of each account in turn one row of each phase, so that nobody waits behind somebody else's backlog. If all
 * accounts have their turn in one claim, what is left of its rows is shared between them.
 * A request is not sent while its account has too many on their way. New ones fill the account's window; those that were
 * tried before have a few places of their own, so that content that nobody has does not hold up what comes after it. All
 * accounts that have no window of their own share some places, so that several of them do not take all slots of the cluster.
 * Beside them, now and then, is a place for the first request of an account: the newest one, so that it need not wait for a
 * round of all accounts whose content nobody has.
 * A row that another process locks is skipped.
 *
 * Not prepared, though to plan it takes longer than to run it: a plan that was kept from when the queue was empty made one
 * claim take seconds once 50,000 requests waited.
 */
export async function claimWork(database: Database, options: ClaimOptions): Promise<Claimed> {
  const { phases, limit, cursor, busy, claim, leaseMs, window, windows, searches, places, first } = options;
  const rows = await database.query<ClaimRow>(CLAIM, [
    cursor,
    ACCOUNTS_AT_ONCE,
    phases,
    busy,
    limit,
    claim,
    leaseMs,
    window,
    JSON.stringify(windows),
    searches,
    searchMs(0),
    places,
    first,
  ]);
  const work = rows.filter((row) => row.requestid !== null) as unknown as readonly Work[];
  const [found] = rows;
  if (found === undefined) return { work, cursor: "" };
  const { picked, pickedLast, visited, last } = found;
  const reached = picked >= limit ? pickedLast : last;
  const isRoundOver = visited < ACCOUNTS_AT_ONCE && reached === last;
  return { work, cursor: isRoundOver ? "" : (reached ?? "") };
}

interface ClaimRow extends Record<string, unknown> {
  readonly requestid: string | null;
  readonly visited: number;
  readonly last: string | null;
  readonly picked: number;
  readonly pickedLast: string | null;
}

/**
 * How many more pins of one account may be in the cluster: new ones, and those that were tried before. What is being sent
 * just now counts. Those that were pinned once do not count: they only come back. One that is being looked at may become
 * one of those that were tried before.
 */
const ON_THE_WAY = (account: string): string => `
  SELECT least(coalesce(($9::jsonb ->> ${account})::integer, $8::integer) - count(*) FILTER (WHERE attempts = 0),
      64 - count(*)) AS places,
    least($10::integer - count(*) FILTER (WHERE attempts > 0 OR moves), 64 - count(*)) AS "searchPlaces"
  FROM (
    SELECT attempts, claimed_until > now() AND sent_at < now() - $11 * interval '1 millisecond' AS moves FROM pin_work
    WHERE account = ${account} AND phase = 'look' AND deadline_at < 'infinity'
    UNION ALL
    SELECT attempts, false FROM pin_work
    WHERE account = ${account} AND phase = 'send' AND due_at > now() AND claimed_until > now() AND deadline_at < 'infinity'
  ) AS f`;

/** What was tried before is looked for among the account's next 200 only: 50,000 new ones are not read each time. */
const FAR_ENOUGH = `
  (SELECT max(due_at) FROM (SELECT due_at FROM pin_work WHERE account = a.account AND phase = 'send' AND due_at <= now()
                            ORDER BY due_at LIMIT 200) AS near)`;

/** An SQL condition: no pin of the account was quick of late, or its last one was slow. */
const isUnproven = (account: string): string => `NOT $9::jsonb ? ${account}`;

const CLAIM = `
  WITH RECURSIVE accounts (account, nth) AS (
    (SELECT account, 1 FROM pin_work WHERE account > $1 ORDER BY account LIMIT 1)
    UNION ALL
    SELECT next.account, a.nth + 1
    FROM accounts a CROSS JOIN LATERAL
      (SELECT w.account FROM pin_work w WHERE w.account > a.account ORDER BY w.account LIMIT 1) AS next
    WHERE a.nth < $2::integer
  ), share AS MATERIALIZED (
    SELECT CASE WHEN $1 = '' THEN greatest(1, least(${ROWS_OF_ACCOUNT}, $5::integer / greatest(1, count(*)))) ELSE 1 END AS rows
    FROM accounts
  ), load AS MATERIALIZED (
    SELECT $12::integer - count(*)::integer AS places FROM (
      SELECT FROM pin_work w
      WHERE w.deadline_at < 'infinity' AND (w.phase = 'look' OR w.claim IS NOT NULL) AND ${isUnproven("w.account")}
        AND (w.phase = 'look' OR w.phase = 'send' AND w.claimed_until > now())
      LIMIT 64) AS unproven
  ), turns AS MATERIALIZED (
    SELECT turn.requestid, a.account, turn.sends AND ${isUnproven("a.account")} AS bounded, turn.nth
    FROM accounts a
    CROSS JOIN LATERAL (${ON_THE_WAY("a.account")}) AS way
    CROSS JOIN LATERAL (
      SELECT next.requestid, next.nth, phases.phase = 'send' AS sends
      FROM (SELECT phase, false FROM unnest($3::text[]) AS given (phase)
            UNION ALL SELECT 'send', true WHERE 'send' = ANY ($3::text[])) AS phases (phase, again)
      CROSS JOIN LATERAL (SELECT requestid, row_number() OVER () AS nth FROM (
        SELECT w.requestid FROM pin_work w
        WHERE w.account = a.account AND w.phase = phases.phase
          AND w.due_at <= CASE WHEN phases.again THEN ${FAR_ENOUGH} ELSE now() END
          AND (phases.phase <> 'send' OR (w.attempts > 0) = phases.again)
        ORDER BY w.due_at
        LIMIT greatest(0, least((SELECT rows FROM share),
          CASE WHEN phases.phase <> 'send' THEN ${ROWS_OF_ACCOUNT} WHEN phases.again THEN way."searchPlaces" ELSE way.places END,
          CASE WHEN phases.phase = 'send' AND ${isUnproven("a.account")} THEN (SELECT places FROM load) END))
        FOR UPDATE SKIP LOCKED) AS due) AS next
      ORDER BY next.nth LIMIT ${ROWS_OF_ACCOUNT}) AS turn
    WHERE a.account <> ALL ($4::text[])
    LIMIT $5::integer
  ), allowed AS MATERIALIZED (
    SELECT requestid FROM (
      SELECT requestid, bounded, row_number() OVER (PARTITION BY bounded ORDER BY nth, random()) AS place FROM turns) AS t
    WHERE NOT bounded OR place <= (SELECT places FROM load)
  ), first AS MATERIALIZED (
    SELECT w.requestid FROM (
      SELECT next.requestid FROM accounts a CROSS JOIN LATERAL (
        SELECT w.requestid, w.attempts, w.accepted_at FROM pin_work w
        WHERE w.account = a.account AND w.phase = 'send' AND w.due_at <= now() ORDER BY w.due_at LIMIT 1) AS next
      WHERE $13::boolean AND 'send' = ANY ($3::text[]) AND (SELECT places FROM load) = 0 AND ${isUnproven("a.account")}
        AND next.attempts = 0 AND a.account <> ALL ($4::text[])
        AND NOT EXISTS (SELECT FROM pin_work w WHERE w.account = a.account AND w.phase = 'look')
        AND NOT EXISTS (SELECT FROM pin_work w WHERE w.account = a.account AND w.phase = 'send' AND w.due_at > now())
      ORDER BY next.accepted_at DESC LIMIT 1) AS newest
    JOIN pin_work w ON w.requestid = newest.requestid
    WHERE w.phase = 'send' AND w.due_at <= now() FOR UPDATE OF w SKIP LOCKED
  ), overdue AS MATERIALIZED (
    SELECT requestid FROM pin_work
    WHERE phase = 'send' AND 'send' = ANY ($3::text[]) AND deadline_at <= now() AND due_at <= now()
      AND account <> ALL ($4::text[])
    ORDER BY deadline_at LIMIT 2 FOR UPDATE SKIP LOCKED
  ), mine AS (
    UPDATE pin_work w
    SET claim = $6::uuid, claimed_until = now() + $7 * interval '1 millisecond', due_at = now() + $7 * interval '1 millisecond'
    WHERE w.requestid IN (SELECT requestid FROM allowed UNION SELECT requestid FROM overdue UNION SELECT requestid FROM first)
    RETURNING w.*
  )
  SELECT (SELECT count(*)::integer FROM accounts) AS visited, (SELECT max(account) FROM accounts) AS last,
    (SELECT count(*)::integer FROM turns) AS picked, (SELECT max(account) FROM turns) AS "pickedLast",
    mine.requestid, mine.account, mine.cid, mine.phase, mine.claim, mine.attempts, mine.last_error AS "lastError",
    mine.deadline_at <= now() AS "isOverdue", isfinite(mine.deadline_at) AS "hasDeadline",
    coalesce(extract(epoch FROM now() - mine.sent_at) * 1000, 0)::float8 AS "sinceSentMs",
    CASE WHEN mine.attempts > 0 THEN way."searchPlaces" ELSE way.places END <= 0 AS "isCrowded",
    way."searchPlaces" <= 0 AS "isSearchCrowded",
    EXISTS (SELECT FROM pin_work w WHERE w.account = mine.account AND w.phase = 'send' AND w.due_at <= now()
              AND w.requestid <> mine.requestid) AS "isWaitedFor",
    EXISTS (SELECT FROM first WHERE first.requestid = mine.requestid) AS "isFirst",
    ${isUnproven("mine.account")} AND (SELECT places FROM load) <= 0 AND EXISTS (
      SELECT FROM accounts a WHERE a.account <> mine.account AND EXISTS (
        SELECT FROM pin_work w WHERE w.account = a.account AND w.phase = 'send' AND w.due_at <= now())) AS "isFull",
    pins.status, coalesce(pins.origins, '[]') AS origins
  FROM (SELECT ${LAZILY}) AS one
  LEFT JOIN mine ON true
  LEFT JOIN LATERAL (${ON_THE_WAY("mine.account")}) AS way ON true
  LEFT JOIN pins ON pins.requestid = mine.requestid`;

/** Makes claims last longer. A row that is locked is being written just now. */
export async function extendClaims(
  database: Database,
  claims: readonly Pick<Work, "requestid" | "claim">[],
  leaseMs: number,
): Promise<void> {
  await database.query(
    `UPDATE pin_work w SET claimed_until = now() + $3 * interval '1 millisecond', due_at = now() + $3 * interval '1 millisecond'
     FROM unnest($1::text[], $2::uuid[]) AS mine (requestid, claim), (SELECT ${LAZILY}) AS lazily
     WHERE w.requestid = mine.requestid AND w.claim = mine.claim AND w.requestid IN (
       SELECT requestid FROM pin_work WHERE requestid = ANY ($1::text[]) FOR UPDATE SKIP LOCKED)`,
    [claims.map(({ requestid }) => requestid), claims.map(({ claim }) => claim), leaseMs],
    { timeoutMs: leaseMs },
  );
}

/** Rows older than upstream's migration 010 only have a name (see giveAccounts). */
const ACCOUNT = `coalesce(p.user_id, ${accountOfName("p.username")}, '')`;

/**
 * For a call to the cluster whose effect is not known, perhaps still to come: the doubt is recorded, one pinned request
 * for the content is looked at again, and a request that is no longer active is unpinned again.
 */
export async function lookAgain(
  database: Database,
  requestid: string,
  spellings: readonly string[],
): Promise<void> {
  await database.query(
    `WITH doubt AS (
       INSERT INTO pin_doubts (cid, until) VALUES ($3, now() + interval '3 seconds')
       ON CONFLICT (cid) DO UPDATE SET until = excluded.until
     ), ended AS (
       DELETE FROM pin_doubts WHERE cid <> $3 AND until < now() - interval '1 hour'
     ), pinned AS (
       INSERT INTO pin_work (requestid, account, cid, action, due_at, deadline_at, sent_at)
       SELECT p.requestid, ${ACCOUNT}, p.cid, 'pin', now() + interval '3 seconds', 'infinity', now() - interval '1 hour'
       FROM pins p WHERE p.cid = ANY ($2::text[]) AND p.status = 'pinned' ORDER BY p.id DESC LIMIT 1
       ON CONFLICT (requestid) DO UPDATE SET pinned_at = NULL, claim = NULL, due_at = excluded.due_at, deadline_at = 'infinity'
       WHERE pin_work.phase = 'size'
     )
     INSERT INTO pin_work (requestid, account, cid, action, due_at, deadline_at)
     SELECT p.requestid, ${ACCOUNT}, p.cid, 'unpin', now() + interval '3 seconds', now()
     FROM pins p WHERE p.requestid = $1 AND p.status IN ('deleted', 'failed')
     ON CONFLICT (requestid) DO UPDATE
     SET due_at = excluded.due_at, claim = NULL, claimed_until = NULL
     WHERE pin_work.action = 'unpin'`,
    [requestid, spellings, spellings[0]],
  );
}

/**
 * The pinned requests for a content that no peer has any more: they leave `pinned` and are worked on until they are
 * pinned again. Returns how many there were.
 */
export async function loseContent(database: Database, spellings: readonly string[]): Promise<number> {
  const rows = await database.query(
    `WITH lost AS (
       UPDATE pins p SET status = 'pinning' WHERE p.cid = ANY ($1::text[]) AND p.status = 'pinned'
       RETURNING p.requestid, ${ACCOUNT} AS account, p.cid
     )
     INSERT INTO pin_work (requestid, account, cid, action, deadline_at, sent_at)
     SELECT requestid, account, cid, 'pin', 'infinity', now() - interval '1 hour' FROM lost
     ON CONFLICT (requestid) DO UPDATE SET pinned_at = NULL, claim = NULL, due_at = now(), deadline_at = 'infinity'
     WHERE pin_work.action = 'pin'
     RETURNING requestid`,
    [spellings],
  );
  return rows.length;
}

/** A pinned request is sent again, and stays pinned. Nothing changes if something is being done for it already. */
export async function sendOnceMore(database: Database, requestid: string): Promise<void> {
  await database.query(
    `INSERT INTO pin_work (requestid, account, cid, action, deadline_at)
     SELECT p.requestid, ${ACCOUNT}, p.cid, 'pin', 'infinity' FROM pins p WHERE p.requestid = $1 AND p.status = 'pinned'
     ON CONFLICT (requestid) DO UPDATE SET sent_at = NULL, pinned_at = NULL, claim = NULL, due_at = now(), deadline_at = 'infinity'
     WHERE pin_work.phase = 'size'`,
    [requestid],
  );
}

/**
 * Gives requests of upstream's pinning API that only have a name the account that a session with that name has: without it,
 * their sender would not find them here. Upstream finds them as before. A thousand at most; returns how many there were.
 */
export async function giveAccounts(database: Database): Promise<number> {
  const rows = await database.query(
    `UPDATE pins p SET user_id = ${accountOfName("p.username")}
     WHERE p.id IN (SELECT id FROM pins WHERE user_id IS NULL AND username <> ''
                      AND (username LIKE '%@%' OR length(username) <= 64) LIMIT 1000 FOR UPDATE SKIP LOCKED)
     RETURNING p.id`,
  );
  return rows.length;
}

/**
 * Takes over active requests that have no work yet: those of upstream's pinning API. A thousand at most; returns how many
 * there were.
 */
export async function takeOver(database: Database, deadlineMs: number): Promise<number> {
  const rows = await database.query(
    `INSERT INTO pin_work (requestid, account, cid, action, deadline_at)
     SELECT p.requestid, ${ACCOUNT}, p.cid, 'pin', now() + $1 * interval '1 millisecond' FROM pins p
     WHERE p.status IN ('queued', 'pinning') AND NOT EXISTS (SELECT FROM pin_work w WHERE w.requestid = p.requestid)
     LIMIT 1000
     ON CONFLICT (requestid) DO NOTHING RETURNING requestid`,
    [deadlineMs],
  );
  return rows.length;
}

/**
 * Accounts that have pins and search for nothing, those with the most pins first. A worker that begins knows by it who need
 * not wait behind the searches of others.
 */
export async function quickAccounts(database: Database, limit: number): Promise<readonly string[]> {
  const rows = await database.query<{ account: string }>(
    `SELECT account FROM account_pins a
     WHERE NOT EXISTS (SELECT FROM pin_work w WHERE w.account = a.account AND w.attempts > 0 AND w.phase IN ('send', 'look'))
     GROUP BY account HAVING sum(pinned) > 0 ORDER BY sum(pinned) DESC LIMIT $1`,
    [limit],
  );
  return rows.map(({ account }) => account);
}

/** How much work there is. */
export interface Depth {
  /** Requests that are not pinned yet or must be unpinned; counted to 100,000. */
  readonly waiting: number;
  /** The age of the oldest one. */
  readonly oldestSeconds: number;
  /** Requests with the status `failed`; counted to 100,000. */
  readonly failed: number;
  /** When they were counted; null: not yet, and the numbers mean nothing. */
  readonly countedAt: Date | null;
}

/** Counts the work that is left, and what failed. Neither reads more than 100,000 rows, however many pins there are. */
export async function readDepth(database: Database): Promise<Depth> {
  const [row] = await database.query<{ waiting: number; oldest: number; failed: number }>(
    `SELECT count(*)::integer AS waiting, coalesce(extract(epoch FROM now() - min(accepted_at)), 0)::float8 AS oldest,
       (SELECT count(*)::integer FROM (SELECT FROM pins WHERE status = 'failed' LIMIT 100000) AS failures) AS failed
     FROM (SELECT accepted_at FROM pin_work WHERE phase <> 'size' AND waits_for IS NULL LIMIT 100000) AS counted`,
  );
  const { waiting = 0, oldest = 0, failed = 0 } = row ?? {};
  return { waiting, oldestSeconds: Math.round(oldest), failed, countedAt: new Date() };
}
