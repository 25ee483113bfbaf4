/** What the peers of a cluster say about one CID, taken together. */
export type Verdict =
  | { readonly kind: "pinned" }
  /** `isQueued`: no peer has begun. */
  | { readonly kind: "pinning"; readonly isQueued: boolean }
  /** No peer has it, and the last try failed on those that answered. */
  | { readonly kind: "failing"; readonly error: string }
  /** It was pinned, and is no longer on any peer. */
  | { readonly kind: "lost" }
  /** No peer has it in its pinset. */
  | { readonly kind: "absent" }
  /** Nothing is known: it is neither failed nor pinned. `answered`: at least one peer said something about itself. */
  | { readonly kind: "unknown"; readonly answered: boolean };

/** The verdict about a CID, and the statuses that this version does not know. */
export interface Judgement {
  readonly verdict: Verdict;
  readonly invented: readonly string[];
}

type Meaning = "pinned" | "pinning" | "queued" | "failing" | "lost" | "absent" | "elsewhere" | "silent";

/**
 * The tracker statuses of ipfs-cluster 1.1.6 (api/types.go, TrackerStatus). `elsewhere`: the peer answers, and need not have
 * it. An unpin that is going on says nothing about a pin that came after it.
 */
const MEANINGS: Readonly<Record<string, Meaning>> = {
  undefined: "silent",
  cluster_error: "silent",
  pin_error: "failing",
  unpin_error: "elsewhere",
  pinned: "pinned",
  pinning: "pinning",
  unpinning: "elsewhere",
  unpinned: "absent",
  remote: "elsewhere",
  pin_queued: "queued",
  unpin_queued: "elsewhere",
  sharded: "elsewhere",
  unexpectedly_unpinned: "lost",
};

const MAX_ERROR = 300;
const LONE_SURROGATE = /\p{Surrogate}/gu;

/**
 * Judges the status of one CID (GlobalPinInfo of the REST API). One peer that has it is enough. A peer that must have it
 * and does not answer may have it, so what the others say is not a failure then.
 */
export function judgeStatus(status: unknown): Judgement {
  const { peer_map: peers, allocations } = fieldsOf(status);
  const map = fieldsOf(peers);
  const meanings = new Set<Meaning>();
  const invented: string[] = [];
  let error = "";
  for (const peer of Object.values(map)) {
    const { status: said, error: why } = fieldsOf(peer);
    const known =
      typeof said === "string" ? (Object.hasOwn(MEANINGS, said) ? MEANINGS[said] : null) : "silent";
    if (known === null) invented.push(String(said).slice(0, MAX_ERROR));
    meanings.add(known ?? "pinning");
    if (known === "failing" && error === "") error = readable(why);
  }
  if (Array.isArray(allocations) && allocations.some((peer) => !Object.hasOwn(map, String(peer))))
    meanings.add("silent");
  return { verdict: verdictOf(meanings, error), invented };
}

function verdictOf(meanings: ReadonlySet<Meaning>, error: string): Verdict {
  if (meanings.has("pinned")) return { kind: "pinned" };
  if (meanings.has("pinning")) return { kind: "pinning", isQueued: false };
  if (meanings.has("queued")) return { kind: "pinning", isQueued: true };
  if (meanings.has("silent")) return { kind: "unknown", answered: meanings.size > 1 };
  if (meanings.has("failing")) return { kind: "failing", error };
  if (meanings.has("lost")) return { kind: "lost" };
  if (meanings.has("absent")) return { kind: "absent" };
  return { kind: "unknown", answered: meanings.size > 0 };
}

function fieldsOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

/** A peer's error can be stored as text: PostgreSQL has no NUL. */
function readable(error: unknown): string {
  if (typeof error !== "string") return "";
  return error.replaceAll("\0", "").replace(LONE_SURROGATE, "").slice(0, MAX_ERROR);
}
