/** The facts about one snapshot that the check of the chain needs. Its signature was checked before. */
interface OrderEntry {
  readonly name: string;
  readonly sequence: number;
  readonly manifestSha256: string;
  readonly previous: { readonly name: string; readonly manifest_sha256: string } | null;
}

/**
 * How a snapshot relates to the previous one. `first`: there is no previous one. `linked`: they match. `gap`: the
 * previous one is not here (retention removes old ones). `broken`: they contradict each other.
 */
export interface OrderVerdict {
  readonly state: "first" | "linked" | "gap" | "broken";
  /** A sentence, if the state is `broken`; else null. */
  readonly why: string | null;
}

/** Checks every snapshot against the ones before and after it. All entries must have a checked signature. */
export function checkOrder(entries: readonly OrderEntry[]): ReadonlyMap<string, OrderVerdict> {
  const byName = new Map(entries.map((entry) => [entry.name, entry]));
  const verdicts = new Map(entries.map((entry) => [entry.name, checkLink(entry, byName)]));
  for (const { name, previous } of entries) {
    const before = previous === null ? undefined : byName.get(previous.name);
    if (before === undefined || previous === null) continue;
    if (before.manifestSha256 === previous.manifest_sha256) continue;
    verdicts.set(
      before.name,
      broken(`the next snapshot, ${name}, refers to a different manifest of this name`),
    );
  }
  return verdicts;
}

function checkLink(entry: OrderEntry, byName: ReadonlyMap<string, OrderEntry>): OrderVerdict {
  if (entry.previous === null) {
    return entry.sequence === 1
      ? { state: "first", why: null }
      : broken(`it has number ${entry.sequence}, but refers to no previous snapshot`);
  }
  const before = byName.get(entry.previous.name);
  if (before === undefined) return { state: "gap", why: null };
  if (before.manifestSha256 !== entry.previous.manifest_sha256)
    return broken(`it refers to a different manifest of ${before.name} than the one that is here`);
  if (before.sequence !== entry.sequence - 1)
    return broken(
      `it has number ${entry.sequence}, but the previous snapshot, ${before.name}, has number ${before.sequence}`,
    );
  return { state: "linked", why: null };
}

function broken(why: string): OrderVerdict {
  return { state: "broken", why };
}

/** The facts about one snapshot that retention needs. */
interface RetentionEntry {
  readonly name: string;
  readonly sequence: number;
  /** The name of the previous snapshot. */
  readonly previous: string | null;
  /** True if its pinset was much smaller than the previous one. */
  readonly dropped: boolean;
}

/**
 * Chooses the snapshots to remove, oldest first, so that the newest `keep` stay. The last snapshot before a
 * drop always stays, because a restore needs it. Pass only entries with a checked signature: a snapshot
 * that cannot be verified is never removed.
 */
export function chooseExpired(verified: readonly RetentionEntry[], keep: number): readonly string[] {
  const bySequence = [...verified].sort((a, b) => a.sequence - b.sequence);
  const beforeDrops = new Set(verified.filter((entry) => entry.dropped).map((entry) => entry.previous));
  return bySequence
    .slice(0, Math.max(0, bySequence.length - Math.max(1, keep)))
    .map((entry) => entry.name)
    .filter((name) => !beforeDrops.has(name));
}

/** True if the change from `before` to `after` pins is a drop: to zero, or by more than `share` (0.1 is 10 %). */
export function isDrop(before: number, after: number, share: number): boolean {
  return before > 0 && (after === 0 || after < before * (1 - share));
}
