import type { PinFacts } from "../../cluster/pin.ts";

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

/** A pin that too few peers are known to hold. */
export interface BelowMinimum {
  readonly cid: string;
  readonly state: ReplicationState;
  readonly pinned: number;
  readonly min: number;
  readonly failedPeers: readonly string[];
  readonly unknownPeers: readonly string[];
  /** True once it was asked singly; a bulk list can be wrong (direct pins). */
  readonly confirmed: boolean;
}

/** Counts verdicts over any number of pins, and keeps a bounded number of suspicious ones. */
export class SweepTally {
  readonly counts: Record<ReplicationState, number> = {
    healthy: 0,
    "in-progress": 0,
    failed: 0,
    unknown: 0,
    "under-replicated": 0,
  };
  readonly #copies = new Map<number, number>();
  readonly #suspects = new Map<string, BelowMinimum>();
  readonly #limit: number;

  /** `limit`: how many suspicious pins are kept by name. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Pins that were judged. */
  get pins(): number {
    return Object.values(this.counts).reduce((sum, count) => sum + count, 0);
  }

  /** Takes the verdict of one more pin. */
  add(cid: string, verdict: PinVerdict, confirmed: boolean): void {
    this.count(verdict);
    this.keep(cid, verdict, confirmed);
  }

  /** Counts one more pin. */
  count(verdict: PinVerdict): void {
    this.counts[verdict.state] += 1;
    this.#copies.set(verdict.pinned, (this.#copies.get(verdict.pinned) ?? 0) + 1);
  }

  /** Takes a pin out of the count again. */
  uncount(verdict: Pick<PinVerdict, "state" | "pinned">): void {
    this.counts[verdict.state] -= 1;
    const left = (this.#copies.get(verdict.pinned) ?? 0) - 1;
    if (left > 0) this.#copies.set(verdict.pinned, left);
    else this.#copies.delete(verdict.pinned);
  }

  /** Keeps a counted pin by name where it is suspicious and there is room. */
  keep(cid: string, verdict: PinVerdict, confirmed: boolean): void {
    if (!isAlarming(verdict.state) || this.#suspects.size >= this.#limit) return;
    this.#suspects.set(cid, { cid, ...verdict, confirmed });
  }

  /** Takes back a suspicious pin, to judge it anew or because it is no longer wished. */
  withdraw(pin: BelowMinimum): void {
    if (this.#suspects.delete(pin.cid)) this.uncount(pin);
  }

  /** The suspicious pins that were kept by name, as they stand now. */
  suspects(): readonly BelowMinimum[] {
    return [...this.#suspects.values()];
  }

  /** How many pins are in a state that is worth an alarm, kept by name or not. */
  alarming(): number {
    return this.counts.failed + this.counts.unknown + this.counts["under-replicated"];
  }

  /** Copies -> pins with so many. */
  histogram(): Readonly<Record<string, number>> {
    return Object.fromEntries(
      [...this.#copies].sort(([a], [b]) => a - b).map(([copies, pins]) => [String(copies), pins]),
    );
  }

  /** Those that lack most copies, the fewest copies first among equals. */
  worst(count: number): readonly BelowMinimum[] {
    return this.suspects()
      .toSorted((a, b) => b.min - b.pinned - (a.min - a.pinned) || a.pinned - b.pinned)
      .slice(0, count);
  }
}

/** Whether a state is worth an alarm; one in progress is not. */
export function isAlarming(state: ReplicationState): boolean {
  return state !== "healthy" && state !== "in-progress";
}
