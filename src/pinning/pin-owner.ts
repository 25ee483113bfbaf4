import { randomUUID } from "node:crypto";
import { readWholePin, type WholePin } from "../cluster/pin.ts";
import { isSendableOrigin, planPin } from "../cluster/pin-request.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { type ParsedCid, spellingsOf, usualSpellingsOf } from "./content-id.ts";
import type { Work } from "./queue.ts";

/** The key of the mark in a pin's metadata. A client's own value for it is not sent. */
const MARK_KEY = "fula-node-database";
const MAX_ORIGINS = 10;

/** Ids with it are of requests whose pin has the mark. */
const PREFIX = "fn-";

/** An id for a request. What is sent for it has the mark. */
export function newRequestId(): string {
  return `${PREFIX}${randomUUID()}`;
}

/**
 * The id of a request that takes over the pin of another one for the same CID. Nothing need be sent for it, so it says of
 * its pin what the old id says.
 */
export function replacingId(id: string, old: string): string {
  return !old.startsWith(PREFIX) && id.startsWith(PREFIX) ? id.slice(PREFIX.length) : id;
}

/** The pin that the cluster has under each usual spelling of a content; null where it has none. */
type Found = ReadonlyMap<string, WholePin | null>;

/** Reads what the cluster has of a content. */
export async function findPins(
  cluster: { readonly allocation: (cid: string) => Promise<unknown> },
  cid: ParsedCid,
): Promise<Found> {
  const found = usualSpellingsOf(cid).map(
    async (spelling) => [spelling, readWholePin(await cluster.allocation(spelling))] as const,
  );
  return new Map(await Promise.all(found));
}

/** What the database knows about the owner of a content's pins. */
interface Ownership {
  /** The mark of this database (migration 030). */
  readonly mark: string;
  /** The spellings whose pin can be an account's without the mark. */
  readonly unmarked: ReadonlySet<string>;
}

/**
 * Reads it. Without a mark, a pin is an account's only if a request whose pin need not have it has that spelling: an active
 * one, or for an unpin the one that ended (`ended`). Of other ended requests nothing is left: a pin without a mark came later.
 */
export async function readOwnership(
  database: Pick<PostgresPool, "query">,
  cid: ParsedCid,
  ended?: Work,
): Promise<Ownership> {
  const all = spellingsOf(cid);
  const statement =
    ended === undefined
      ? { sql: UNMARKED_ACTIVE, values: [all], name: "work-owner" }
      : { sql: UNMARKED_ENDED, values: [all, ended.requestid], name: "work-owner-ended" };
  const [row] = await database.query<{ mark: string; unmarked: readonly string[] }>(
    statement.sql,
    statement.values,
    { name: statement.name },
  );
  if (row === undefined) throw new Error("the table pin_mark has no row");
  const usual = usualSpellingsOf(cid);
  // Every text but the CIDv0 is the CIDv1 in some base.
  const unmarked = row.unmarked.map((text) => (usual.includes(text) ? text : (usual[0] ?? text)));
  return { mark: row.mark, unmarked: new Set(unmarked) };
}

const unmarkedSql = (condition: string): string => `
  SELECT m.mark::text AS mark, ARRAY(
    SELECT s.cid FROM unnest($1::text[]) AS s (cid)
    WHERE EXISTS (SELECT FROM pins p WHERE p.cid = s.cid AND ${condition} AND p.requestid NOT LIKE 'fn-%')) AS unmarked
  FROM pin_mark m`;
const UNMARKED_ACTIVE = unmarkedSql("p.status IN ('queued', 'pinning', 'pinned')");
const UNMARKED_ENDED = unmarkedSql("p.requestid = $2");

/** True if accounts may not unpin or rename a pin: it is the operator's, or another master's. */
export function isOthers(spelling: string, { options }: WholePin, { mark, unmarked }: Ownership): boolean {
  const found = options.metadata[MARK_KEY];
  return found === undefined ? !unmarked.has(spelling) : found !== mark;
}

/** What a request needs from the cluster: a pin request with that path, or nothing, or what it can't be asked for. */
type NeededCall =
  | { readonly kind: "pin"; readonly path: string }
  | { readonly kind: "none" }
  | { readonly kind: "impossible" };

/**
 * The call that a request needs.
 *
 * The service's cluster decides the number of copies; a pin that is already there keeps the operator's, and loses an
 * expiry. Names and metadata stay in the database: one pin serves the requests of several accounts, and every storage node
 * and reader of the pinset would see them. A pin that is not an account's stays as it is: only if it is direct, or expires,
 * it is made to last, with its own name and metadata.
 */
export function callFor(work: Work, cid: ParsedCid, found: Found, owner: Ownership): NeededCall {
  const there = found.get(cid.text) ?? null;
  if (there !== null && isOthers(cid.text, there, owner)) {
    const { mode, expireAt } = there.options;
    if (there.type !== "pin" || (mode === "recursive" && expireAt === null)) return { kind: "none" };
    return pinCall(there, there.options.metadata);
  }
  const pin: WholePin = {
    cid: cid.text,
    type: "pin",
    allocations: there?.allocations ?? [],
    options: {
      name: "",
      mode: "recursive",
      replicationMin: there?.options.replicationMin ?? 0,
      replicationMax: there?.options.replicationMax ?? 0,
      shardSize: there?.options.shardSize ?? 0,
      metadata: {},
      origins: arrayOf(work.origins).filter(isSendableOrigin).slice(0, MAX_ORIGINS),
      expireAt: null,
    },
  };
  return pinCall(pin, { [MARK_KEY]: owner.mark });
}

function pinCall(pin: WholePin, metadata: Readonly<Record<string, unknown>>): NeededCall {
  const options = { ...pin.options, mode: "recursive" as const, expireAt: null, metadata };
  const plan = planPin({ ...pin, options }, new Date(0));
  return plan.kind === "pin" ? plan : { kind: "impossible" };
}

function arrayOf(json: string): readonly string[] {
  const value = parsed(json);
  return Array.isArray(value) ? value.filter((entry): entry is string => typeof entry === "string") : [];
}

/** Rows of upstream can hold any text. */
function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return null;
  }
}
