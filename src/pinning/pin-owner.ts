import { randomUUID } from "node:crypto";
import { readWholePin, type WholePin } from "../cluster/pin.ts";
import { isSendableOrigin, planPin } from "../cluster/pin-request.ts";
import { type ParsedCid, usualSpellingsOf } from "./content-id.ts";
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
  /** The spellings whose pin can be an account's without the mark, as the cluster has them. */
  readonly unmarked: ReadonlySet<string>;
}

/** From what readStandings found. */
export function ownershipOf(
  cid: ParsedCid,
  { mark, unmarked }: { readonly mark: string; readonly unmarked: readonly string[] },
): Ownership {
  const usual = usualSpellingsOf(cid);
  // Every text but the CIDv0 is the CIDv1 in some base.
  return {
    mark,
    unmarked: new Set(unmarked.map((text) => (usual.includes(text) ? text : (usual[0] ?? text)))),
  };
}

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
