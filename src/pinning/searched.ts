import type { PostgresPool } from "../database/postgres.ts";
import { databaseErrorOf } from "../database/session.ts";
import { messageOf, OperatorError } from "../errors.ts";
import { parseCid, spellingsOf, usualSpellingsOf } from "./content-id.ts";

type Database = Pick<PostgresPool, "query">;

/** The contents that requests wait for. */
interface Searched {
  /** As the cluster spells them: a CIDv1 in base32, and the CIDv0 where there is one. */
  readonly cids: ReadonlySet<string>;
  /** True if there are more requests than were read. */
  readonly isCut: boolean;
}

/** So many requests are read, those that the cluster has first, so that the memory stays small. */
const LIMIT = 20_000;
/** Contents that one statement looks up. */
const PAGE = 500;

/**
 * The contents that requests wait for and that were never pinned: no request for them was ever pinned, in any spelling.
 * What was pinned and lost its copies is not among them: its deadline is infinity, or its request still is `pinned`.
 * Nothing on a schema without the queue. Throws an OperatorError (unavailable) if the database refuses.
 */
export async function readSearched(database: Database, limit = LIMIT): Promise<Searched> {
  try {
    return await read(database, limit);
  } catch (thrown) {
    if (databaseErrorOf(thrown) === null) throw thrown;
    throw new OperatorError({
      exit: "unavailable",
      what: `The database refused to list the queue of the pinning API: ${messageOf(thrown)}.`,
      remedy: "Look at `fula-node migrate status`, then run this again.",
      cause: thrown,
    });
  }
}

async function read(database: Database, limit: number): Promise<Searched> {
  const [queue] = await database.query<{ there: boolean }>(
    "SELECT to_regclass('public.pin_work') IS NOT NULL AS there",
  );
  if (queue?.there !== true) return { cids: new Set(), isCut: false };
  const rows = await database.query<{ cid: string }>(WAITING, [limit + 1]);
  const cids = new Set<string>();
  const waiting = [...new Set(rows.slice(0, limit).map(({ cid }) => cid))];
  for (let at = 0; at < waiting.length; at += PAGE) {
    const parsed = waiting.slice(at, at + PAGE).map((text) => parseCid(text));
    const contents = parsed.filter((cid) => cid !== null).map((cid) => ({ cid, all: spellingsOf(cid) }));
    const found = await database.query<{ cid: string }>(PINNED_ONCE, [contents.flatMap(({ all }) => all)]);
    const pinnedOnce = new Set(found.map(({ cid }) => cid));
    for (const { cid, all } of contents) {
      if (all.some((spelling) => pinnedOnce.has(spelling))) continue;
      for (const spelling of usualSpellingsOf(cid)) cids.add(spelling);
    }
  }
  return { cids, isCut: rows.length > limit };
}

const WAITING = `
  SELECT w.cid FROM pin_work w
  WHERE w.action = 'pin' AND w.pinned_at IS NULL AND w.deadline_at < 'infinity'
    AND EXISTS (SELECT FROM pins p WHERE p.requestid = w.requestid AND p.status IN ('queued', 'pinning'))
  ORDER BY w.sent_at NULLS LAST, w.requestid LIMIT $1`;

const PINNED_ONCE = `
  SELECT c.cid FROM unnest($1::text[]) AS c (cid)
  WHERE EXISTS (
    SELECT FROM pins p
    WHERE p.cid = c.cid AND (p.status = 'pinned' OR (p.status IN ('queued', 'pinning') AND EXISTS (
      SELECT FROM pin_work w
      WHERE w.requestid = p.requestid AND w.action = 'pin'
        AND (w.pinned_at IS NOT NULL OR w.deadline_at = 'infinity')))))`;
