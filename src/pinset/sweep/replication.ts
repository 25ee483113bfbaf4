import { utcSeconds } from "../../units.ts";
import { type PinFacts, UNPINNED } from "../../cluster/pin.ts";

/** How many copies a pin needs, and where. */
export interface ReplicationRule {
  /** The pin's own minimum, 0 if it has none; not used if `everywhere` is true. */
  readonly min: number;
  /** True if its replication factor is -1: every expected node must have a copy. */
  readonly everywhere: boolean;
  /** The peers that must have a copy, if it is not everywhere. */
  readonly allocations: readonly string[];
  /** True if the pinning API still searches for the content. */
  readonly searched?: boolean;
}

/** The nodes whose copies count. Any other peer is a stranger: it can report a copy that it does not have. */
export interface ExpectedNodes {
  /** The ids of all expected nodes, also of those that are gone. */
  readonly ids: ReadonlySet<string>;
  /** Those of them that are new and still fetch the pinset. */
  readonly syncing: ReadonlySet<string>;
  /** Those of them that have fetched the pinset only just now, and may lose pins to older removals for a while. */
  readonly settling: ReadonlySet<string>;
  /** Members of which it is not known whether they are nodes of the pool. */
  readonly undecided?: ReadonlySet<string>;
  /** REPL_MIN: no pin with fewer copies is healthy, whatever its own minimum is. */
  readonly floor: number;
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
 * - syncing: there will be enough copies when new nodes have fetched the pinset, or if undecided members have them.
 * - searched-for: no copy yet, and the pinning API has a request for it that was never pinned.
 * - failed: too few copies, and a peer failed; recover makes that peer try again.
 * - unknown: too few reported copies, but peers that do not answer may have the missing ones.
 * - under-replicated: too few copies, and no peer fetches the content.
 */
export type ReplicationState =
  | "healthy"
  | "in-progress"
  | "syncing"
  | "searched-for"
  | "failed"
  | "unknown"
  | "under-replicated";

/** The verdict on one pin. */
export interface PinVerdict {
  readonly state: ReplicationState;
  /** The number of expected nodes that report a copy. */
  readonly pinned: number;
  /** The number of copies that it needs: its own minimum, but never less than the floor. */
  readonly min: number;
  /** True if every node that can have a copy has one, or fetches it, but the pool has fewer nodes than copies are needed. */
  readonly lacksNodes: boolean;
  /** Peers whose attempt failed. Recover makes them try again. */
  readonly failedPeers: readonly string[];
  /** Peers that must have a copy, but reported nothing or do not answer. */
  readonly unknownPeers: readonly string[];
}

/** The rule for a pin, from its own replication factor. `searched`: the contents that the pinning API still searches for. */
export function ruleOf(pin: PinFacts, searched: ReadonlySet<string> = new Set()): ReplicationRule {
  const search = searched.has(pin.cid) ? { searched: true } : {};
  if (pin.replicationMin < 0) return { min: 0, everywhere: true, allocations: [], ...search };
  return { min: pin.replicationMin, everywhere: false, allocations: pin.allocations, ...search };
}

/** Gives the verdict on one pin. With fewer copies on expected nodes than the floor, no pin is healthy. */
export function judgePin(rule: ReplicationRule, status: PinStatus, nodes: ExpectedNodes): PinVerdict {
  const { ids, syncing, settling, undecided, floor } = nodes;
  const failedPeers: string[] = [];
  const unknownPeers: string[] = [];
  const seen = { pinned: 0, inProgress: 0, syncing: 0, strangers: 0 };
  const countPeer = (peer: string): void => {
    const info = status.peerMap[peer];
    if (undecided?.has(peer) === true) seen.syncing += 1;
    else if (!ids.has(peer)) seen.strangers += 1;
    else if (info !== undefined && isCopy(info)) seen.pinned += 1;
    else if (info !== undefined && isFirstAttempt(info)) seen.inProgress += 1;
    else if (syncing.has(peer) || (settling.has(peer) && info?.status === UNPINNED)) seen.syncing += 1;
    else if (info === undefined || isUnknown(info.status)) unknownPeers.push(peer);
    else if (hasFailed(info)) failedPeers.push(peer);
  };
  const targets = rule.everywhere ? ids : new Set(rule.allocations);
  targets.forEach(countPeer);
  const min = Math.max(rule.everywhere ? ids.size : rule.min, floor);
  const reachable = seen.pinned + seen.inProgress + seen.syncing;
  const lacksNodes = seen.pinned > 0 && reachable === targets.size && reachable < min && ids.size < min;
  const judged = judge({ ...seen, min, failed: failedPeers.length, unknown: unknownPeers.length });
  // A single copy ends the search.
  const isSearched = rule.searched === true && seen.pinned === 0 && isBelow(judged);
  const state = isSearched ? "searched-for" : judged;
  return { state, pinned: seen.pinned, min, lacksNodes, failedPeers, unknownPeers };
}

function judge(seen: {
  readonly pinned: number;
  readonly inProgress: number;
  readonly syncing: number;
  readonly min: number;
  readonly failed: number;
  readonly unknown: number;
}): ReplicationState {
  const { pinned, inProgress, syncing, min, failed, unknown } = seen;
  // Without an expected node and without a minimum, no copy would be enough copies.
  if (pinned >= Math.max(min, 1)) return "healthy";
  if (pinned + inProgress >= min && inProgress > 0) return "in-progress";
  if (pinned + inProgress + syncing >= min && syncing > 0) return "syncing";
  if (failed > 0) return "failed";
  return pinned + inProgress + syncing + unknown >= min ? "unknown" : "under-replicated";
}

/** True if a peer reports a copy. */
export function isCopy({ status }: PeerPinInfo): boolean {
  return status === "pinned" || status === "sharded";
}

function isFirstAttempt(info: PeerPinInfo): boolean {
  return (info.status === "pinning" || info.status === "pin_queued") && !hasFailed(info);
}

function isUnknown(status: string): boolean {
  return status === "cluster_error" || status === "undefined" || status === "";
}

/** A peer that tries again after a failure still counts as failed. Otherwise the pin would be in progress for ever. */
function hasFailed(info: PeerPinInfo): boolean {
  if (info.status === "pinning" || info.status === "pin_queued") return info.attempts > 1;
  return info.status === "pin_error" || info.status === UNPINNED;
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
  const utc = utcSeconds(at);
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
  readonly lacksNodes: boolean;
  /** True after a request for this pin alone. The list of all pins can be wrong (direct pins). */
  readonly confirmed: boolean;
}

/** Counts the verdicts on any number of pins, and keeps a limited number of candidates: pins that look wrong. */
export class SweepTally {
  readonly counts: Record<ReplicationState, number> = {
    healthy: 0,
    "in-progress": 0,
    syncing: 0,
    "searched-for": 0,
    failed: 0,
    unknown: 0,
    "under-replicated": 0,
  };
  /** Pins of drills with too few copies, which are counted only here. */
  drills = 0;
  readonly #copies = new Map<number, number>();
  #lackingNodes = 0;
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
    if (verdict.lacksNodes) this.#lackingNodes += 1;
    this.#copies.set(verdict.pinned, (this.#copies.get(verdict.pinned) ?? 0) + 1);
  }

  /** Subtracts a pin that was counted. */
  uncount(verdict: Pick<PinVerdict, "state" | "pinned" | "lacksNodes">): void {
    this.counts[verdict.state] -= 1;
    if (verdict.lacksNodes) this.#lackingNodes -= 1;
    const left = (this.#copies.get(verdict.pinned) ?? 0) - 1;
    if (left > 0) this.#copies.set(verdict.pinned, left);
    else this.#copies.delete(verdict.pinned);
  }

  /** Keeps a counted pin by its CID, if it is worth an alert of its own and the limit is not reached. */
  addCandidate(cid: string, verdict: PinVerdict, confirmed: boolean): void {
    if (!isAlarming(verdict) || this.#candidates.size >= this.#limit) return;
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

  /** How many pins have too few copies, and no node that fetches the missing ones for the first time. */
  below(): number {
    return this.counts.failed + this.counts.unknown + this.counts["under-replicated"];
  }

  /** How many of them are worth an alert of their own, kept as candidates or not. */
  alarming(): number {
    return this.below() - this.#lackingNodes;
  }

  /** How many of them only lack nodes: one alert is enough for all of these. */
  get lackingNodes(): number {
    return this.#lackingNodes;
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

/** True if a pin is worth an alert of its own. A pin that is in progress, syncing or searched for is not, nor one that only lacks nodes. */
export function isAlarming({ state, lacksNodes }: Pick<PinVerdict, "state" | "lacksNodes">): boolean {
  return !lacksNodes && isBelow(state);
}

function isBelow(state: ReplicationState): boolean {
  return state === "failed" || state === "unknown" || state === "under-replicated";
}
