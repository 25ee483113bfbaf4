import { WHO, WHO_EACH } from "../accounts/sessions.ts";
import { gateVerdict, isHeld, isOpenToAll } from "./credit-gate.ts";
import type { PinFilter } from "./pin-filter.ts";

/** A statement for the pool. Each name always has the same SQL. */
export interface Statement {
  readonly sql: string;
  readonly values: readonly unknown[];
  readonly name?: string;
}

/** The first two values of every statement: the hash of a token, or the account that is already known. */
export type Sender = readonly [tokenHash: string | null, account: string | null];

/** A row with a request, as STATUS_COLUMNS selects it. */
export interface StatusRow extends Record<string, unknown> {
  readonly requestid: string;
  readonly status: string;
  /** As in RFC 3339, with microseconds. A Date would lose them. */
  readonly created: string;
  readonly cid: string;
  readonly name: string | null;
  readonly origins: string | null;
  readonly meta: string | null;
  readonly delegates: string | null;
  readonly info: string | null;
}

const CREATED = `to_char(p.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS created`;
const STATUS_COLUMNS = `p.requestid, p.status, ${CREATED}, p.cid, p.name, p.origins, p.meta, p.delegates, p.info`;

/**
 * Lists an account's requests, newest first; equal times are in the order of `id`. Each status has its own ordered scan of
 * an index, so a list of a few rows reads a few rows. The number of all of them is kept for each status (migration 028);
 * with any other filter, the rows are counted. One row without a requestid if the list is empty; no row if the sender is
 * not known.
 */
export function listStatement(sender: Sender, filter: PinFilter): Statement {
  const values: unknown[] = [...sender, filter.statuses, filter.limit];
  const { sql, isPlain } = conditionsOf(filter, (value) => `$${values.push(value)}`);
  const mine = "p.user_id = (SELECT account FROM who)";
  const total =
    sql === ""
      ? "account_pin_count(who.account, $3::text[])::int"
      : `(SELECT count(*)::int FROM pins p WHERE ${mine} AND p.status = ANY($3::text[])${sql})`;
  const text = `
  WITH ${WHO}, page AS (
    SELECT f.* FROM unnest($3::text[]) AS wanted (status) CROSS JOIN LATERAL (
      SELECT p.id, p.created_at AS at, ${STATUS_COLUMNS} FROM pins p
      WHERE ${mine} AND p.status = wanted.status${sql} ORDER BY p.created_at DESC, p.id DESC LIMIT $4::int
    ) f ORDER BY f.at DESC, f.id DESC LIMIT $4::int
  )
  SELECT ${total} AS total, page.*
  FROM who LEFT JOIN page ON true ORDER BY page.at DESC, page.id DESC`;
  // Other combinations are many and rare: prepared, they would fill the memory of each connection.
  return isPlain ? { sql: text, values, name: `pins-list${boundsOf(filter)}` } : { sql: text, values };
}

function boundsOf({ before, after }: PinFilter): string {
  return `${before === null ? "" : "-before"}${after === null ? "" : "-after"}`;
}

function conditionsOf(
  { cids, name, meta, before, after }: PinFilter,
  add: (value: unknown) => string,
): { readonly sql: string; readonly isPlain: boolean } {
  const parts: string[] = [];
  if (before !== null) parts.push(`p.created_at < ${add(before)}::timestamptz`);
  if (after !== null) parts.push(`p.created_at > ${add(after)}::timestamptz`);
  if (cids !== null) parts.push(`p.cid = ANY(${add(cids)}::text[])`);
  if (name !== null) {
    const { text, match } = name;
    const ignoresCase = match === "iexact" || match === "ipartial";
    const column = ignoresCase ? "p.name_lowercase" : "p.name";
    const value = `${add(ignoresCase ? text.toLowerCase() : text)}::text`;
    parts.push(match.endsWith("partial") ? `strpos(${column}, ${value}) > 0` : `${column} = ${value}`);
  }
  if (meta !== null) parts.push(`p.meta <> '{}' AND pin_meta(p.meta) @> ${add(meta)}::jsonb`);
  return {
    sql: parts.map((part) => ` AND ${part}`).join(""),
    isPlain: cids === null && name === null && meta === null,
  };
}

/** Finds one request of the sender. One row without a requestid if there is none; no row if the sender is not known. */
export const FIND = `
  WITH ${WHO}
  SELECT who.account, ${STATUS_COLUMNS} FROM who LEFT JOIN pins p
    ON p.requestid = $3::text AND p.user_id = who.account AND p.status <> 'deleted'`;

/**
 * The values of a new request after the sender: requestid, cid, name, lower-case name, origins, meta, delegates, the
 * multihash (contentOf), bytes of the free tier, most pending requests (or NULL), seconds until it fails.
 */
export type NewRequest = readonly [
  ...request: RequestColumns,
  content: string,
  freeTierBytes: number,
  maxPending: number | null,
  deadlineSeconds: number,
];

/** What of a new request its row has. */
export type RequestColumns = readonly [
  requestid: string,
  cid: string,
  name: string,
  nameLowercase: string,
  origins: string,
  meta: string,
  delegates: string,
];

const BLOCKED = `blocked AS MATERIALIZED (
    SELECT mode FROM blocked_cids WHERE cid_content(cid) = $10::text ORDER BY mode = 'block' DESC LIMIT 1
  )`;

const gate = { account: "who.account", freeTierBytes: "$11::bigint", maxPending: "$12::bigint" };

const COLUMNS = `requestid, user_id, username, token_hash, cid, name, name_lowercase, origins, meta, delegates, created_at`;
const VALUES = `$3::text, account, account, $1::text, $4::text, $5::text, $6::text, $7::text, $8::text, $9::text, clock_timestamp()`;
const DEADLINE = "now() + $13::bigint * interval '1 second'";

/**
 * An SQL expression: when a new request for a CID was sent. Null, unless a request of whatever account has it pinned: then
 * the cluster need not be told again, and the request needs no place among those that are searched for. Only requests whose
 * pin has the mark count, as the pin of the new one must have it. OFFSET keeps the planner from the index on the status.
 */
function sentAt(cid: string): string {
  return `(SELECT now() FROM (SELECT k.status, k.requestid FROM pins k WHERE k.cid = ${cid} OFFSET 0) AS known
      WHERE known.status = 'pinned' AND known.requestid LIKE 'fn-%' LIMIT 1)`;
}

/**
 * Accepts a request: its row, and its work for the queue, in one statement. No row if the sender is not known. Otherwise one
 * row: `blocked` is the mode if the content is blocked, `verdict` is what the credit gate says, and `created` is set only
 * if the request was accepted.
 */
export const ADD = `
  WITH ${WHO}, ${BLOCKED}, gate AS MATERIALIZED (
    SELECT who.account, ${gateVerdict(gate)} AS verdict FROM who WHERE NOT EXISTS (SELECT FROM blocked)
  ), p AS (
    INSERT INTO pins (${COLUMNS}) SELECT ${VALUES} FROM gate WHERE verdict = 'open' RETURNING created_at
  ), work AS (
    INSERT INTO pin_work (requestid, account, cid, action, deadline_at, sent_at)
      SELECT $3::text, account, $4::text, 'pin', ${DEADLINE}, ${sentAt("$4::text")} FROM gate WHERE verdict = 'open'
  )
  SELECT (SELECT mode FROM blocked) AS blocked, (SELECT verdict FROM gate) AS verdict, (SELECT ${CREATED} FROM p) AS created
  FROM who`;

/**
 * Accepts several requests at once: those whose content is not blocked, of accounts with a balance. It says nothing about
 * the others; ADD does. Values: the senders (two arrays); of each request the place of its sender, the first values of a
 * NewRequest up to the content, and its number (arrays); seconds until they fail. One row for each request that was accepted.
 */
export const ADD_SEVERAL = `
  WITH ${WHO_EACH}, funded AS MATERIALIZED (
    SELECT * FROM who WHERE ${isOpenToAll("who.account")}
  ), open AS MATERIALIZED (
    SELECT funded.account, funded.token_hash, asked.* FROM
      unnest($3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::int[])
        AS asked (sender, requestid, cid, name, name_lowercase, origins, meta, delegates, content, nth)
      JOIN funded ON funded.sender = asked.sender
    WHERE NOT EXISTS (SELECT FROM blocked_cids WHERE cid_content(cid) = asked.content)
  ), p AS (
    INSERT INTO pins (${COLUMNS})
      SELECT requestid, account, account, token_hash, cid, name, name_lowercase, origins, meta, delegates, clock_timestamp()
      FROM open ORDER BY nth
      RETURNING requestid, created_at
  ), work AS (
    INSERT INTO pin_work (requestid, account, cid, action, deadline_at, sent_at)
      SELECT requestid, account, cid, 'pin', now() + $13::bigint * interval '1 second', ${sentAt("open.cid")} FROM open
  )
  SELECT p.requestid, ${CREATED} FROM p`;

/**
 * Says what ADD would say now, and accepts nothing: the multihash (or NULL), the bytes of the free tier and the most pending
 * requests come after the sender.
 */
export const CHECK = `
  WITH ${WHO}, blocked AS MATERIALIZED (
    SELECT mode FROM blocked_cids WHERE cid_content(cid) = $3::text ORDER BY mode = 'block' DESC LIMIT 1
  )
  SELECT who.account, (SELECT mode FROM blocked) AS blocked,
    ${gateVerdict({ account: "who.account", freeTierBytes: "$4::bigint", maxPending: "$5::bigint" })} AS verdict
  FROM who`;

/**
 * An SQL condition: what a request replaced stays pinned, since the request has no outcome yet, or failed. A request that
 * failed keeps it only if its size is counted: the request has that size until its own content is pinned.
 */
export function isKept(work: string): string {
  return `EXISTS (SELECT FROM pins next LEFT JOIN pin_work w ON w.requestid = next.requestid
      WHERE next.requestid = ${work}.waits_for AND (next.status = 'failed' AND next.size > 0
        OR next.status IN ('queued', 'pinning') AND coalesce(w.deadline_at, '-infinity') < 'infinity'))`;
}

/** An SQL condition: the content of a row of pins was pinned once, so the row's size is that of its own content. */
export function wasPinned(pins: string): string {
  return `(${pins}.status = 'pinned' OR ${pins}.status = 'pinning' AND EXISTS (
      SELECT FROM pin_work w WHERE w.requestid = ${pins}.requestid AND w.deadline_at = 'infinity'))`;
}

/**
 * A part of a WITH clause: the account's active requests for one content ($x: its spellings). They are locked in one order,
 * so that two statements that end or replace such requests run one after the other, and the second one reads what the
 * first one wrote.
 */
function siblings(account: string, spellings: string): string {
  return `siblings AS MATERIALIZED (
    SELECT p.id, p.requestid, p.cid, p.status, p.size AS counted, p.info, ${wasPinned("p")} AS was_pinned,
      CASE WHEN ${wasPinned("p")} THEN p.size ELSE 0 END AS size FROM pins p
    WHERE p.user_id = ${account} AND p.cid = ANY(${spellings}::text[]) AND p.status <> 'deleted' ORDER BY p.id FOR UPDATE
  )`;
}

/** Another active request of the account for the same content, which the size of an ended request passes to. */
const HEIR = `SELECT s.id FROM siblings s, gone WHERE s.id <> gone.id AND gone.size > 0
    AND NOT EXISTS (SELECT FROM siblings other WHERE other.id <> gone.id AND other.size > 0)
    ORDER BY s.status = 'pinned' DESC, s.id LIMIT 1`;

/** The end of a request's work: whatever was to be done for it, the content may be unpinned, now or after `waitsFor`. */
function unpin(from: string, deadline: string, waitsFor = "NULL::text"): string {
  return `INSERT INTO pin_work (requestid, account, cid, action, deadline_at, waits_for)
      SELECT requestid, account, cid, 'unpin', ${deadline}, ${waitsFor} FROM ${from}
    ON CONFLICT (requestid) DO UPDATE SET action = 'unpin', due_at = now(), attempts = 0, sent_at = NULL,
      claim = NULL, claimed_until = NULL, deadline_at = EXCLUDED.deadline_at, last_error = NULL,
      waits_for = EXCLUDED.waits_for`;
}

/**
 * Deletes a request, also with what it replaced. That loses its claim: a worker that looks at it just now would put it off. Values: account, requestid, spellings of its CID, seconds for the unpin. One row if it was
 * deleted.
 */
export const REMOVE = `
  WITH ${siblings("$1::text", "$3")}, gone AS MATERIALIZED (
    SELECT id, requestid, $1::text AS account, cid, size FROM siblings WHERE requestid = $2::text
  ), heir AS MATERIALIZED (${HEIR}), ended AS (
    UPDATE pins SET status = 'deleted', size = CASE WHEN EXISTS (SELECT FROM heir) THEN 0 ELSE pins.size END
      FROM gone WHERE pins.id = gone.id
  ), passed AS (
    UPDATE pins SET size = gone.size FROM gone, heir WHERE pins.id = heir.id
  ), work AS (
    ${unpin("gone", "now() + $4::bigint * interval '1 second'")}
  ), freed AS (
    UPDATE pin_work kept SET due_at = now(), attempts = 0, claim = NULL, claimed_until = NULL FROM gone WHERE kept.waits_for = gone.requestid
  )
  SELECT requestid FROM gone`;

/**
 * Replaces a request by a new one, in one statement: at no time are both active, or neither. Values: the sender (with the
 * account), a NewRequest, the old requestid, and the spellings of the old CID. For the same CID, the new request takes over
 * status and size, and nothing is unpinned. An old content that was pinned stays until the new one is (isKept), and so does
 * one that the old request kept so far, if its size is counted: the new request has that size until then. The gate is then asked only about a failed request, which is tried anew, and
 * whether the operator suspended the account: nothing more is stored. `found` is false if the old
 * request is not active any more.
 */
export const REPLACE = `
  WITH ${BLOCKED}, ${siblings("$2::text", "$15")}, old AS MATERIALIZED (
    SELECT *, cid = $4::text AS is_same, $2::text AS account FROM siblings WHERE requestid = $14::text
  ), gate AS MATERIALIZED (
    SELECT old.*, CASE WHEN is_same AND status <> 'failed' AND NOT ${isHeld("old.account")} THEN 'open' ELSE ${gateVerdict(
      {
        ...gate,
        account: "old.account",
        replaced: "(old.status IN ('queued', 'pinning'))::int",
      },
    )} END AS verdict
    FROM old WHERE NOT EXISTS (SELECT FROM blocked)
  ), won AS MATERIALIZED (
    SELECT *, is_same AND status = 'pinned' AS stays_pinned FROM gate WHERE verdict = 'open'
  ), gone AS MATERIALIZED (
    SELECT * FROM won WHERE NOT is_same
  ), heir AS MATERIALIZED (${HEIR}), ended AS (
    UPDATE pins SET status = 'deleted',
      size = CASE WHEN won.is_same OR EXISTS (SELECT FROM heir) THEN 0 ELSE pins.size END
      FROM won WHERE pins.id = won.id
  ), passed AS (
    UPDATE pins SET size = gone.size FROM gone, heir WHERE pins.id = heir.id
  ), p AS (
    INSERT INTO pins (${COLUMNS}, status, size, info)
      SELECT ${VALUES}, CASE WHEN stays_pinned THEN 'pinned' ELSE 'queued' END,
        CASE WHEN is_same OR EXISTS (SELECT FROM pin_work kept WHERE kept.waits_for = won.requestid) AND NOT was_pinned
          THEN counted WHEN EXISTS (SELECT FROM heir) THEN 0 ELSE size END, CASE WHEN stays_pinned THEN info ELSE '{}' END FROM won
      RETURNING created_at, status, info
  ), old_work AS (
    ${unpin("gone", DEADLINE, "CASE WHEN was_pinned THEN $3::text END")}
  ), kept AS (
    UPDATE pin_work kept SET due_at = now(), attempts = 0, claim = NULL, claimed_until = NULL,
      waits_for = CASE WHEN is_same OR NOT was_pinned AND counted > 0 THEN $3::text ELSE kept.waits_for END
      FROM won WHERE kept.waits_for = won.requestid
  ), no_work AS (
    DELETE FROM pin_work w USING won WHERE w.requestid = won.requestid AND won.is_same
  ), work AS (
    INSERT INTO pin_work (requestid, account, cid, action, deadline_at, sent_at)
      SELECT $3::text, account, $4::text, 'pin', ${DEADLINE}, ${sentAt("$4::text")} FROM won WHERE NOT stays_pinned
  )
  SELECT EXISTS (SELECT FROM old) AS found, (SELECT mode FROM blocked) AS blocked, (SELECT verdict FROM gate) AS verdict,
    (SELECT ${CREATED} FROM p) AS created, (SELECT status FROM p) AS status, (SELECT info FROM p) AS info`;
