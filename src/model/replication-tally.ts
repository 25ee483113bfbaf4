import type { PinVerdict, ReplicationState } from "./replication.ts";

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
