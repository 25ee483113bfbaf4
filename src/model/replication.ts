import type { PinFacts } from "../cluster/pin.ts";

/** How often a pin has to be there. */
export interface ReplicationRule {
  /** Copies it needs; not used where everywhere is true. */
  readonly min: number;
  /** Its replication factor is -1: every known storage node has to hold it. */
  readonly everywhere: boolean;
  /** Who ought to hold it, where it is not everywhere. */
  readonly allocations: readonly string[];
}

/** What one peer says of one pin (api/types.go, PinInfoShort). */
export interface PeerClaim {
  readonly status: string;
  readonly attempts: number;
}

/**
 * What the peers say of one pin (api/types.go, GlobalPinInfo). Its `allocations` are left out: they are
 * those of whichever peer answered last, none at all where that one does not know the pin.
 */
export interface PinStatus {
  readonly cid: string;
  readonly claims: Readonly<Record<string, PeerClaim>>;
}

/**
 * - healthy: enough peers say that they hold it.
 * - in-progress: enough will, once those that fetch it for the first time are done.
 * - failed: too few, and a peer failed; recover makes it try again.
 * - unknown: too few are known to hold it, but peers that can't be asked may.
 * - under-replicated: too few, and nobody is on it.
 */
export type ReplicationState = "healthy" | "in-progress" | "failed" | "unknown" | "under-replicated";

/** How a pin stands. */
export interface PinVerdict {
  readonly state: ReplicationState;
  /** Peers that say they hold it. */
  readonly pinned: number;
  readonly min: number;
  /** Peers whose attempt failed: what recover can mend. */
  readonly failedPeers: readonly string[];
  /** Peers that ought to hold it and said nothing, or could not be asked. */
  readonly unknownPeers: readonly string[];
}

/** The rule of a pin: its own minimum, `fallbackMin` where it has none. */
export function ruleOf(pin: PinFacts, fallbackMin: number): ReplicationRule {
  if (pin.replicationMin < 0) return { min: 0, everywhere: true, allocations: [] };
  const min = pin.replicationMin === 0 ? fallbackMin : pin.replicationMin;
  return { min, everywhere: false, allocations: pin.allocations };
}

/** Judges one pin. `nodes`: every known storage node, those that are gone too. */
export function judgePin(rule: ReplicationRule, status: PinStatus, nodes: ReadonlySet<string>): PinVerdict {
  const failedPeers: string[] = [];
  const unknownPeers: string[] = [];
  let pinned = 0;
  let coming = 0;
  const meet = (peer: string): void => {
    const claim = status.claims[peer];
    if (claim === undefined) unknownPeers.push(peer);
    else if (claim.status === "pinned" || claim.status === "sharded") pinned += 1;
    else if (isUnknown(claim.status)) unknownPeers.push(peer);
    else if (hasFailed(claim)) failedPeers.push(peer);
    else if (claim.status === "pinning" || claim.status === "pin_queued") coming += 1;
  };
  if (rule.everywhere) nodes.forEach(meet);
  else rule.allocations.forEach(meet);
  const min = rule.everywhere ? nodes.size : rule.min;
  const state = judge({ pinned, coming, min, failed: failedPeers.length, unknown: unknownPeers.length });
  return { state, pinned, min, failedPeers, unknownPeers };
}

function judge(seen: {
  readonly pinned: number;
  readonly coming: number;
  readonly min: number;
  readonly failed: number;
  readonly unknown: number;
}): ReplicationState {
  if (seen.pinned >= seen.min) return "healthy";
  if (seen.pinned + seen.coming >= seen.min) return "in-progress";
  if (seen.failed > 0) return "failed";
  return seen.pinned + seen.coming + seen.unknown >= seen.min ? "unknown" : "under-replicated";
}

function isUnknown(status: string): boolean {
  return status === "cluster_error" || status === "undefined" || status === "";
}

/** A peer that is at it again after a failure still counts as failed: it would look busy for ever. */
function hasFailed(claim: PeerClaim): boolean {
  if (claim.status === "pinning" || claim.status === "pin_queued") return claim.attempts > 1;
  return claim.status === "pin_error" || claim.status === "unexpectedly_unpinned";
}

/** Reads a GlobalPinInfo; null where the value is none. Unknown statuses count as "does not hold it". */
export function readPinStatus(value: unknown): PinStatus | null {
  if (typeof value !== "object" || value === null) return null;
  const { cid, peer_map: map } = value as Readonly<Record<string, unknown>>;
  if (typeof cid !== "string" || typeof map !== "object" || map === null) return null;
  const claims: Record<string, PeerClaim> = {};
  for (const [peer, claim] of Object.entries(map as Record<string, unknown>)) {
    const { status, attempt_count: attempts } = (claim ?? {}) as Readonly<Record<string, unknown>>;
    claims[peer] = {
      status: typeof status === "string" ? status : "",
      attempts: typeof attempts === "number" ? attempts : 0,
    };
  }
  return { cid, claims };
}

/** An alert line in the format of upstream's log. */
export function alertLine(at: Date, cid: string, verdict: Pick<PinVerdict, "pinned" | "min">): string {
  const utc = at.toISOString().replace(/\.\d{3}Z$/, "Z");
  return `${utc} under-replicated cid=${cid} pinned=${verdict.pinned} min=${verdict.min}`;
}
