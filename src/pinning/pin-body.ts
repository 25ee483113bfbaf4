import { type ParsedCid, parseCid, whyNeverPinned } from "./content-id.ts";

/** What a user asks to be pinned (IPFS Pinning Service API 1.0, schema Pin). */
export interface PinBody {
  readonly cid: ParsedCid;
  readonly name: string;
  /** Multiaddrs of peers that have the content. */
  readonly origins: readonly string[];
  /** A JSON object of texts. */
  readonly meta: string;
}

/** A value, or the reason why it is not accepted, for the sender. */
export type Reading<Value> = { readonly value: Value } | { readonly problem: string };

/** The limits of the specification. */
export const LIMITS = { name: 255, origins: 20, meta: 1_000 } as const;
const MAX_ORIGIN = 1_024;

/** Reads the body of a request to pin or to replace. */
export function readPinBody(body: unknown): Reading<PinBody> {
  if (!isObject(body)) return { problem: "The body must be a JSON object with a cid." };
  const { cid, name = "", origins = [], meta = {} } = body;
  if (typeof cid !== "string") return { problem: "cid is missing, or is not a text." };
  const parsed = parseCid(cid);
  if (parsed === null) return { problem: "cid is not a CID. A path is not accepted." };
  const never = whyNeverPinned(parsed);
  if (never !== null) return { problem: `No node can pin this cid: ${never}.` };
  const wrong = findBadName(name) ?? findBadOrigins(origins) ?? findBadMeta(meta);
  if (wrong !== null) return { problem: wrong };
  return {
    value: {
      cid: parsed,
      name: name as string,
      origins: [...new Set(origins as readonly string[])],
      meta: JSON.stringify(meta),
    },
  };
}

function findBadName(name: unknown): string | null {
  if (typeof name !== "string") return "name must be a text.";
  if (!isText(name)) return `name ${NOT_TEXT}`;
  return isLongerThan(name, LIMITS.name) ? `name must have at most ${LIMITS.name} characters.` : null;
}

function findBadOrigins(origins: unknown): string | null {
  if (!Array.isArray(origins)) return "origins must be a list.";
  if (origins.length > LIMITS.origins) return `origins must have at most ${LIMITS.origins} entries.`;
  const isOrigin = (one: unknown): boolean =>
    typeof one === "string" && one.length <= MAX_ORIGIN && isText(one) && /^(?:\/[^/\s]+)+$/.test(one);
  return origins.every(isOrigin)
    ? null
    : "Each of the origins must be a multiaddr, such as /dns4/example.org/tcp/4001/p2p/ID.";
}

/** Checks metadata, of a pin or of a filter. Null if it is a JSON object of texts. */
export function findBadMeta(meta: unknown): string | null {
  if (!isObject(meta)) return "meta must be a JSON object.";
  const entries = Object.entries(meta);
  if (entries.length > LIMITS.meta) return `meta must have at most ${LIMITS.meta} keys.`;
  for (const [key, value] of entries) {
    if (typeof value !== "string") return "Each value of meta must be a text.";
    if (!isText(key) || !isText(value)) return `A key or value of meta ${NOT_TEXT}`;
    // Many programs that read it back would change the prototype of an object.
    if (key === "__proto__") return "meta must not have a key __proto__.";
  }
  return null;
}

/** Completes a sentence about a text that isText refuses. */
export const NOT_TEXT =
  "has a character that can't be stored: NUL, half of a surrogate pair, U+FFFE or U+FFFF.";

/** False for a text that PostgreSQL or a JSON reader would refuse or change. */
export function isText(text: string): boolean {
  return !/[\0\uFFFE\uFFFF]|\p{Surrogate}/u.test(text);
}

/** True if a text has more characters than that. A character outside the basic plane counts once. */
export function isLongerThan(text: string, characters: number): boolean {
  if (text.length <= characters) return false;
  return text.length > 2 * characters || Array.from(text).length > characters;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
