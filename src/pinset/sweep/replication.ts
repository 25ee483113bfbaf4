import type { PinFacts } from "../../cluster/pin.ts";

/** How many copies a pin needs, and where. */
export interface ReplicationRule {
  /** The number of copies it needs; not used if `everywhere` is true. */
  readonly min: number;
  /** True if its replication factor is -1: every known storage node must have a copy. */
  readonly everywhere: boolean;
  /** The peers that must have a copy, if it is not everywhere. */
  readonly allocations: readonly string[];
}

/** The status that one peer reports for one pin (api/types.go, PinInfoShort). */
export interface PeerPinInfo {
  readonly status: string;
  readonly attempts: number;
}

/**
 * The status that the peers report for one pin (api/types.go, GlobalPinInfo). Its `allocations` are left out:
 * they come from the peer that answered last, and are empty if that peer does not know the pin.
 */
export interface PinStatus {
  readonly cid: string;
  readonly peerMap: Readonly<Record<string, PeerPinInfo>>;
}

/**
 * - healthy: enough peers report a copy.
 * - in-progress: there will be enough copies when the peers that fetch the content for the first time are done.
 * - failed: too few copies, and a peer failed; recover makes that peer try again.
 * - unknown: too few reported copies, but peers that do not answer may have the missing ones.
 * - under-replicated: too few copies, and no peer fetches the content.
 */
export type ReplicationState = "healthy" | "in-progress" | "failed" | "unknown" | "under-replicated";

/** The verdict on one pin. */
export interface PinVerdict {
  readonly state: ReplicationState;
  /** The number of peers that report a copy. */
  readonly pinned: number;
  readonly min: number;
  /** Peers whose attempt failed. Recover makes them try again. */
  readonly failedPeers: readonly string[];
  /** Peers that must have a copy, but reported nothing or do not answer. */
  readonly unknownPeers: readonly string[];
}

/** The rule for a pin: its own minimum, or `fallbackMin` if it has none. */
export function ruleOf(pin: PinFacts, fallbackMin: number): ReplicationRule {
  if (pin.replicationMin < 0) return { min: 0, everywhere: true, allocations: [] };
  const min = pin.replicationMin === 0 ? fallbackMin : pin.replicationMin;
  return { min, everywhere: false, allocations: pin.allocations };
}

/** Gives the verdict on one pin. `nodes`: the ids of all known storage nodes, also of those that are gone. */
export function judgePin(rule: ReplicationRule, status: PinStatus, nodes: ReadonlySet<string>): PinVerdict {
  const failedPeers: string[] = [];
  const unknownPeers: string[] = [];
  let pinned = 0;
  let inProgress = 0;
  const countPeer = (peer: string): void => {
    const info = status.peerMap[peer];
    if (info === undefined) unknownPeers.push(peer);
    else if (info.status === "pinned" || info.status === "sharded") pinned += 1;
    else if (isUnknown(info.status)) unknownPeers.push(peer);
    else if (hasFailed(info)) failedPeers.push(peer);
    else if (info.status === "pinning" || info.status === "pin_queued") inProgress += 1;
  };
  if (rule.everywhere) nodes.forEach(countPeer);
  else rule.allocations.forEach(countPeer);
  const min = rule.everywhere ? nodes.size : rule.min;
  const state = judge({ pinned, inProgress, min, failed: failedPeers.length, unknown: unknownPeers.length });
  return { state, pinned, min, failedPeers, unknownPeers };
}

function judge(seen: {
  readonly pinned: number;
  readonly inProgress: number;
  readonly min: number;
  readonly failed: number;
  readonly unknown: number;
}): ReplicationState {
  if (seen.pinned >= seen.min) return "healthy";
  if (seen.pinned + seen.inProgress >= seen.min) return "in-progress";
  if (seen.failed > 0) return "failed";
  return seen.pinned + seen.inProgress + seen.unknown >= seen.min ? "unknown" : "under-replicated";
}

function isUnknown(status: string): boolean {
  return status === "cluster_error" || status === "undefined" || status === "";
}

/** A peer that tries again after a failure still counts as failed. Otherwise the pin would be in progress for ever. */
function hasFailed(info: PeerPinInfo): boolean {
  if (info.status === "pinning" || info.status === "pin_queued") return info.attempts > 1;
  return info.status === "pin_error" || info.status === "unexpectedly_unpinned";
}

/** Reads a GlobalPinInfo; null if the value is not one. An unknown status counts as "no copy". */
export function readPinStatus(value: unknown): PinStatus | null {
  if (typeof value !== "object" || value === null) return null;
  const { cid, peer_map: map } = value as Readonly<Record<string, unknown>>;
  if (typeof cid !== "string" || typeof map !== "object" || map === null) return null;
  const peerMap: Record<string, PeerPinInfo> = {};
  for (const [peer, info] of Object.entries(map as Record<string, unknown>)) {
    const { status, attempt_count: attempts } = (info ?? {}) as Readonly<Record<string, unknown>>;
    peerMap[peer] = {
      status: typeof status === "string" ? status : "",
      attempts: typeof attempts === "number" ? attempts : 0,
    };
  }
  return { cid, peerMap };
}

/** An alert line, in the format of upstream's log. */
export function alertLine(at: Date, cid: string, verdict: Pick<PinVerdict, "pinned" | "min">): string {
  const utc = at.toISOString().replace(/\.\d{3}Z$/, "Z");
  return `${utc} under-replicated cid=${cid} pinned=${verdict.pinned} min=${verdict.min}`;
}

/** A pin that has too few known copies. */
export interface BelowMinimum {
  readonly cid: string;
  readonly state: ReplicationState;
  readonly pinned: number;
  readonly min: number;
  readonly failedPeers: readonly string[];
  readonly unknownPeers: readonly string[];
  /** True after a request for this pin alone. The list of all pins can be wrong (direct pins). */
  readonly confirmed: boolean;
}

/** Counts the verdicts on any number of pins, and keeps a limited number of candidates: pins that look wrong. */
export class SweepTally {
  readonly counts: Record<ReplicationState, number> = {
    healthy: 0,
    "in-progress": 0,
    failed: 0,
    unknown: 0,
    "under-replicated": 0,
  };
  readonly #copies = new Map<number, number>();
  readonly #candidates = new Map<string, BelowMinimum>();
  readonly #limit: number;

  /** `limit`: how many candidates are kept. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** How many pins were counted. */
  get pins(): number {
    return Object.values(this.counts).reduce((sum, count) => sum + count, 0);
  }

  /** Counts one more pin, and keeps it if it is a candidate. */
  add(cid: string, verdict: PinVerdict, confirmed: boolean): void {
    this.count(verdict);
    this.addCandidate(cid, verdict, confirmed);
  }

  /** Counts one more pin. */
  count(verdict: PinVerdict): void {
    this.counts[verdict.state] += 1;
    this.#copies.set(verdict.pinned, (this.#copies.get(verdict.pinned) ?? 0) + 1);
  }

  /** Subtracts a pin that was counted. */
  uncount(verdict: Pick<PinVerdict, "state" | "pinned">): void {
    this.counts[verdict.state] -= 1;
    const left = (this.#copies.get(verdict.pinned) ?? 0) - 1;
    if (left > 0) this.#copies.set(verdict.pinned, left);
    else this.#copies.delete(verdict.pinned);
  }

  /** Keeps a counted pin by its CID, if its state is worth an alert and the limit is not reached. */
  addCandidate(cid: string, verdict: PinVerdict, confirmed: boolean): void {
    if (!isAlarming(verdict.state) || this.#candidates.size >= this.#limit) return;
    this.#candidates.set(cid, { cid, ...verdict, confirmed });
  }

  /** Removes a candidate and its count, because it is checked again or is not in the desired pinset any more. */
  remove(pin: BelowMinimum): void {
    if (this.#candidates.delete(pin.cid)) this.uncount(pin);
  }

  /** The candidates that were kept, with their latest verdict. */
  candidates(): readonly BelowMinimum[] {
    return [...this.#candidates.values()];
  }

  /** How many pins are in a state that is worth an alert, kept as candidates or not. */
  alarming(): number {
    return this.counts.failed + this.counts.unknown + this.counts["under-replicated"];
  }

  /** The number of copies -> the number of pins with that many copies. */
  histogram(): Readonly<Record<string, number>> {
    return Object.fromEntries(
      [...this.#copies].sort(([a], [b]) => a - b).map(([copies, pins]) => [String(copies), pins]),
    );
  }

  /** The candidates that lack the most copies. If several lack the same number, the one with the fewest copies comes first. */
  worst(count: number): readonly BelowMinimum[] {
    return this.candidates()
      .toSorted((a, b) => b.min - b.pinned - (a.min - a.pinned) || a.pinned - b.pinned)
      .slice(0, count);
  }
}

/** True if a state is worth an alert. A pin that is in progress is not. */
export function isAlarming(state: ReplicationState): boolean {
  return state !== "healthy" && state !== "in-progress";
}
