import type { PostgresPool } from "../database/postgres.ts";
import { wasPinned } from "./pin-sql.ts";

type Database = Pick<PostgresPool, "query">;

/** Which of these contents are blocked, whatever the spelling of their rows, in their order. */
export async function areBlocked(
  database: Database,
  contents: readonly string[],
): Promise<readonly boolean[]> {
  const rows = await database.query<{ content: string }>(
    "SELECT cid_content(cid) AS content FROM blocked_cids WHERE cid_content(cid) = ANY ($1::text[])",
    [contents],
    { name: "work-are-blocked" },
  );
  const blocked = new Set(rows.map(({ content }) => content));
  return contents.map((content) => blocked.has(content));
}

/** A content that the operator blocks. */
export interface Block {
  /** A CIDv1 in base32, as upstream writes it. */
  readonly cid: string;
  /** The multihash (contentOf). */
  readonly content: string;
  /** `redirect`: clients are sent to ipfs.io. */
  readonly mode: "block" | "redirect";
  readonly reason: string;
  readonly actor: string;
}

/** Blocks a content, or changes the mode and the reason of its rows. `unchanged`: it was blocked so already. Writes the audit log. */
export async function blockContent(
  database: Database,
  block: Block,
): Promise<"added" | "updated" | "unchanged"> {
  const { cid, content, mode, reason, actor } = block;
  const [row] = await database.query<{ isNew: boolean }>(BLOCK, [cid, content, mode, reason, actor]);
  if (row === undefined) return "unchanged";
  return row.isNew ? "added" : "updated";
}

const BLOCK = `
  WITH added AS (
    INSERT INTO blocked_cids (cid, reason, blocked_by, mode) SELECT $1::text, $4::text, left($5::text, 64), $3::text
      WHERE NOT EXISTS (SELECT FROM blocked_cids WHERE cid_content(cid) = $2)
      ON CONFLICT (cid) DO NOTHING RETURNING cid
  ), changed AS (
    UPDATE blocked_cids SET mode = $3, reason = $4 WHERE cid_content(cid) = $2
      AND (mode, reason) IS DISTINCT FROM ($3::text, $4::text) RETURNING cid
  ), decided AS (
    SELECT true AS "isNew" FROM added UNION ALL SELECT false FROM changed LIMIT 1
  ), audited AS (
    INSERT INTO admin_audit_log (actor, action, details)
      SELECT $5, 'block', jsonb_build_object('cid', $1::text, 'mode', $3::text, 'reason', $4::text) FROM decided
  )
  SELECT "isNew" FROM decided`;

/** Ends a block: every row with that content goes, in whatever spelling. Returns how many. Writes the audit log. */
export async function unblockContent(database: Database, block: Omit<Block, "mode">): Promise<number> {
  const { cid, content, reason, actor } = block;
  const [row] = await database.query<{ count: number }>(UNBLOCK, [cid, content, reason, actor]);
  return row?.count ?? 0;
}

const UNBLOCK = `
  WITH gone AS (
    DELETE FROM blocked_cids WHERE cid_content(cid) = $2 RETURNING cid
  ), audited AS (
    INSERT INTO admin_audit_log (actor, action, details)
      SELECT $4, 'unblock', jsonb_build_object('cid', $1::text, 'reason', $3::text) WHERE EXISTS (SELECT FROM gone)
  )
  SELECT count(*)::integer AS count FROM gone`;

/** A row of blocked_cids. */
export interface BlockedRow {
  readonly id: number;
  readonly cid: string;
  readonly mode: "block" | "redirect";
  readonly reason: string | null;
  readonly blockedBy: string | null;
  readonly created: string;
  /** False: the text is not a CID, so it blocks nothing. */
  readonly isEffective: boolean;
}

/** Up to `limit` rows whose id is above `after`, in the order of the ids. */
export function listBlocked(
  database: Database,
  { after, limit }: { readonly after: number; readonly limit: number },
): Promise<readonly BlockedRow[]> {
  return database.query<BlockedRow & Record<string, unknown>>(LIST, [after, limit]);
}

const LIST = `
  SELECT id, cid, mode, reason, blocked_by AS "blockedBy", cid_content(cid) IS NOT NULL AS "isEffective",
    to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS created
  FROM blocked_cids WHERE id > $1 ORDER BY id LIMIT $2`;

/** A request for a blocked content that is not deleted and has not failed. */
export interface BlockedRequest {
  readonly requestid: string;
  readonly account: string;
  readonly status: string;
}

/** The active requests for a content, and up to `limit` of them. `spellings`: spellingsOfContent. */
export async function requestsFor(
  database: Database,
  spellings: readonly string[],
  limit: number,
): Promise<{ readonly count: number; readonly requests: readonly BlockedRequest[] }> {
  const rows = await database.query<BlockedRequest & { count: number } & Record<string, unknown>>(REQUESTS, [
    spellings,
    limit,
  ]);
  return {
    count: rows[0]?.count ?? 0,
    requests: rows.map(({ requestid, account, status }) => ({ requestid, account, status })),
  };
}

const ACTIVE = "p.cid = ANY ($1::text[]) AND p.status IN ('queued', 'pinning', 'pinned')";

const REQUESTS = `
  SELECT p.requestid, coalesce(p.user_id, p.username, '') AS account, p.status, (count(*) OVER ())::integer AS count
  FROM pins p WHERE ${ACTIVE} ORDER BY p.id LIMIT $2`;

/**
 * Ends the active requests for a content: they fail with the reason that it is blocked, use no storage any more, and the
 * queue unpins it, also where a replaced request keeps it. Returns how many.
 */
export async function endRequestsFor(database: Database, spellings: readonly string[]): Promise<number> {
  const rows = await database.query(END, [spellings, JSON.stringify(BLOCKED)]);
  return rows.length;
}

/** What the holder of a request for a blocked content is told. */
export const BLOCKED = { reason: "BLOCKED", details: "This content is blocked on this service." };

const END = `
  WITH found AS MATERIALIZED (
    SELECT p.id FROM pins p WHERE ${ACTIVE} ORDER BY p.id FOR UPDATE
  ), ended AS (
    UPDATE pins p SET status = 'failed', size = CASE WHEN ${wasPinned("p")} THEN 0 ELSE p.size END, info = $2
      FROM found WHERE p.id = found.id
      RETURNING p.requestid, coalesce(p.user_id, '') AS account, p.cid
  ), replacing AS MATERIALIZED (
    SELECT p.id, p.requestid FROM pins p WHERE p.requestid IN (
      SELECT waits_for FROM pin_work WHERE cid = ANY ($1::text[]) AND waits_for IS NOT NULL) ORDER BY p.id FOR UPDATE
  ), freed AS (
    UPDATE pin_work kept SET waits_for = NULL, due_at = now(), claim = NULL, claimed_until = NULL FROM replacing
      WHERE kept.waits_for = replacing.requestid AND kept.cid = ANY ($1::text[])
      RETURNING replacing.id
  ), uncounted AS (
    UPDATE pins p SET size = 0 FROM freed
      WHERE p.id = freed.id AND NOT ${wasPinned("p")} AND p.id NOT IN (SELECT id FROM found)
  ), work AS (
    INSERT INTO pin_work (requestid, account, cid, action, deadline_at)
      SELECT requestid, account, cid, 'unpin', now() FROM ended
    ON CONFLICT (requestid) DO UPDATE SET action = 'unpin', due_at = now(), attempts = 0, sent_at = NULL,
      claim = NULL, claimed_until = NULL, deadline_at = EXCLUDED.deadline_at, last_error = NULL
  )
  SELECT requestid FROM ended`;
