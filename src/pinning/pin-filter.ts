import { parseCid, spellingsOf } from "./content-id.ts";
import { findBadMeta, isLongerThan, isText, LIMITS, NOT_TEXT, type Reading } from "./pin-body.ts";

/** The statuses that the specification knows. A row that is `deleted` is not shown to anybody. */
export const STATUSES = ["queued", "pinning", "pinned", "failed"] as const;
export type PinState = (typeof STATUSES)[number];

export const MATCHES = ["exact", "iexact", "partial", "ipartial"] as const;

/** What `GET /pins` is asked for. */
export interface PinFilter {
  /** Every spelling of each CID; null for any CID. */
  readonly cids: readonly string[] | null;
  readonly name: { readonly text: string; readonly match: (typeof MATCHES)[number] } | null;
  readonly statuses: readonly PinState[];
  /** A JSON object whose pairs the metadata must have. */
  readonly meta: string | null;
  /** Only requests that were created before (after) this time, excluding it. As PostgreSQL reads it, in microseconds. */
  readonly before: string | null;
  readonly after: string | null;
  readonly limit: number;
}

export const MAX_CIDS = 10;
const DEFAULT_LIMIT = 10;
export const MAX_LIMIT = 1_000;
const NAMES = ["cid", "name", "match", "status", "meta", "before", "after", "limit"] as const;

/**
 * Reads the query of `GET /pins`. Parameters that the specification does not have are ignored. Without `status`, only
 * pinned requests are listed, as the specification says.
 */
export function readPinFilter(query: string): Reading<PinFilter> {
  const read = readQuery(query, NAMES);
  if ("problem" in read) return read;
  const {
    cid,
    name,
    match = "exact",
    status,
    meta,
    before,
    after,
    limit = String(DEFAULT_LIMIT),
  } = read.value;
  const cids = cid === undefined ? { value: null } : readCids(cid);
  if ("problem" in cids) return cids;
  const statuses = readStatuses(status);
  if ("problem" in statuses) return statuses;
  if (!isOneOf(MATCHES, match)) return { problem: `match must be one of ${MATCHES.join(", ")}.` };
  if (name !== undefined && isLongerThan(name, LIMITS.name))
    return { problem: `name must have at most ${LIMITS.name} characters.` };
  const pairs = meta === undefined ? { value: null } : readMeta(meta);
  if ("problem" in pairs) return pairs;
  const from = after === undefined ? { value: null } : readBound("after", after);
  if ("problem" in from) return from;
  const to = before === undefined ? { value: null } : readBound("before", before);
  if ("problem" in to) return to;
  if (!/^[1-9][0-9]{0,3}$/.test(limit) || Number(limit) > MAX_LIMIT)
    return { problem: `limit must be a whole number from 1 to ${MAX_LIMIT}.` };
  return {
    value: {
      cids: cids.value,
      name: name === undefined ? null : { text: name, match },
      statuses: statuses.value,
      meta: pairs.value,
      before: to.value,
      after: from.value,
      limit: Number(limit),
    },
  };
}

/**
 * The parameters of a query that have one of these names. A name that occurs twice is refused, and so are bytes that are
 * not UTF-8 and characters that can't be stored.
 */
export function readQuery<Name extends string>(
  query: string,
  names: readonly Name[],
): Reading<Partial<Record<Name, string>>> {
  const found: Partial<Record<Name, string>> = {};
  for (const part of query.split("&")) {
    const at = part.indexOf("=");
    const name = decode((at < 0 ? part : part.slice(0, at)).replaceAll("+", " "));
    if (name === null || !isOneOf(names, name)) continue;
    const value = at < 0 ? "" : decode(part.slice(at + 1).replaceAll("+", " "));
    if (value === null) return { problem: `${name} is not UTF-8.` };
    if (!isText(value)) return { problem: `${name} ${NOT_TEXT}` };
    if (found[name] !== undefined) return { problem: `${name} occurs more than once.` };
    found[name] = value;
  }
  return { value: found };
}

/** Decodes a part of a path, or of a query without `+`. Null if its bytes are not UTF-8. */
export function decode(text: string): string | null {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

function readCids(text: string): Reading<readonly string[]> {
  const texts = text.split(",");
  if (texts.length > MAX_CIDS) return { problem: `cid must have at most ${MAX_CIDS} CIDs.` };
  const spellings = new Set<string>();
  for (const one of texts) {
    const parsed = parseCid(one);
    if (parsed === null) return { problem: "cid must be CIDs, separated by commas." };
    for (const spelling of spellingsOf(parsed)) spellings.add(spelling);
  }
  return { value: [...spellings] };
}

function readStatuses(text: string | undefined): Reading<readonly PinState[]> {
  const texts = text === undefined ? ["pinned"] : text.split(",");
  const known = texts.filter((one): one is PinState => isOneOf(STATUSES, one));
  return known.length === texts.length
    ? { value: [...new Set(known)] }
    : { problem: `status must be one or more of ${STATUSES.join(", ")}, separated by commas.` };
}

/** No pairs are no filter. */
function readMeta(text: string): Reading<string | null> {
  const meta = parse(text);
  const problem = meta === undefined ? "meta is not JSON." : findBadMeta(meta);
  if (problem !== null) return { problem };
  const pairs = JSON.stringify(meta);
  return { value: pairs === "{}" ? null : pairs };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** PostgreSQL keeps microseconds, so a later digit is rounded in the direction that leaves the same rows. */
function readBound(name: "before" | "after", text: string): Reading<string> {
  const instant = readInstant(text, name === "before" ? "up" : "down");
  return instant === null
    ? { problem: `${name} must be a time as in RFC 3339, such as 2026-01-31T09:30:00.123456Z.` }
    : { value: instant };
}

/** True if a text is in a list. */
export function isOneOf<Text extends string>(texts: readonly Text[], text: string): text is Text {
  return (texts as readonly string[]).includes(text);
}

const MINUTE_MS = 60_000;

/**
 * Reads a time as in RFC 3339 and returns it in UTC with six digits after the point, as PostgreSQL stores it. Further
 * digits are rounded up or down. Null for a text that is not one, and for a day or hour that does not exist. A Date has
 * milliseconds only, so it is used for whole seconds.
 */
export function readInstant(text: string, rounding: "up" | "down"): string | null {
  const [, day = "", time = "", digits = "", zone = ""] =
    /^(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2}:\d{2})(?:\.(\d{1,30}))?(Z|[+-]\d{2}:\d{2})$/i.exec(text) ?? [];
  if (day === "") return null;
  const local = Date.parse(`${day}T${time}Z`);
  // A day such as 30 February is read as one in March.
  if (Number.isNaN(local) || !isoOf(local).startsWith(`${day}T${time}`)) return null;
  const offset = offsetOf(zone);
  if (offset === null) return null;
  const roundsUp = rounding === "up" && /[1-9]/.test(digits.slice(6));
  const micros = Number(digits.slice(0, 6).padEnd(6, "0")) + (roundsUp ? 1 : 0);
  const carry = micros === 1_000_000 ? 1_000 : 0;
  const utc = isoOf(local - offset * MINUTE_MS + carry);
  if (!/^\d{4}-/.test(utc) || utc.startsWith("0000")) return null;
  return `${utc.slice(0, 19)}.${String(micros % 1_000_000).padStart(6, "0")}Z`;
}

function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}

/** The minutes that a zone is ahead of UTC. */
function offsetOf(zone: string): number | null {
  if (zone.toUpperCase() === "Z") return 0;
  const [hours = 0, minutes = 0] = zone.slice(1).split(":").map(Number);
  if (hours > 23 || minutes > 59) return null;
  return (zone.startsWith("-") ? -1 : 1) * (hours * 60 + minutes);
}
