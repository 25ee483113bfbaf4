/** The facts about one snapshot that retention needs. */
export interface RetentionEntry {
  readonly name: string;
  readonly sequence: number;
  /** When it was taken, in milliseconds since 1970. */
  readonly takenAtMs: number;
  /** How many pins it has. */
  readonly count: number;
  /** If its pinset lacked too much of an earlier one, the name of that one; else null. */
  readonly reference: string | null;
  /** True if the operator said that this pinset is right. What was before it needs no further protection. */
  readonly accepted: boolean;
  /** True if it proves that its key replaced another one. */
  readonly replacesKey: boolean;
  /** False if its body is not the one that was signed. It is never removed, and never counts as kept. */
  readonly intact: boolean;
}

/** What retention keeps, beside the protected snapshots. */
export interface RetentionPolicy {
  /** The newest snapshots that always stay. At least one stays. */
  readonly keep: number;
  /** The share of pins that may disappear without an alarm: 0.1 is 10 %. */
  readonly dropShare: number;
}

const DAY_MS = 86_400_000;
/** Only periods with a snapshot are counted, so neither a pause nor a wrong clock removes anything. In UTC. */
const TIERS: readonly { readonly periods: number; readonly periodOf: (ms: number) => number }[] = [
  { periods: 14, periodOf: (ms) => Math.floor(ms / DAY_MS) },
  // Weeks begin on Monday; 1970 began on a Thursday.
  { periods: 8, periodOf: (ms) => Math.floor((Math.floor(ms / DAY_MS) + 3) / 7) },
  { periods: 12, periodOf: monthOf },
];

/**
 * Chooses the snapshots to remove, oldest first. These stay: the newest `keep`; the last one of each of 14 days, 8
 * weeks and 12 months; the largest while the newest is much smaller; the one that an alarm refers to, with the first
 * snapshot of that alarm; the last
 * accepted one; and the first one of each key that replaced another. Pass all snapshots with a valid signature: also one whose body is
 * damaged shows what an alarm refers to.
 */
export function chooseExpired(signed: readonly RetentionEntry[], policy: RetentionPolicy): readonly string[] {
  const all = signed.toSorted((a, b) => b.sequence - a.sequence || (a.name < b.name ? 1 : -1));
  const newestFirst = all.filter(({ intact }) => intact);
  const kept = new Set(newestFirst.slice(0, Math.max(1, policy.keep)).map(({ name }) => name));
  for (const { periods, periodOf } of TIERS) {
    const seen = new Set<number>();
    for (const { name, takenAtMs } of newestFirst) {
      const period = periodOf(takenAtMs);
      if (seen.has(period) || seen.size >= periods) continue;
      seen.add(period);
      kept.add(name);
    }
  }
  for (const name of protectedNames(all, policy.dropShare)) kept.add(name);
  return newestFirst
    .map(({ name }) => name)
    .filter((name) => !kept.has(name))
    .toReversed();
}

function protectedNames(newestFirst: readonly RetentionEntry[], dropShare: number): readonly string[] {
  const valid = sinceAccepted(newestFirst);
  const accepted = valid.find((entry) => entry.accepted);
  const names = newestFirst.filter(({ replacesKey }) => replacesKey).map(({ name }) => name);
  if (accepted !== undefined) names.push(accepted.name);
  const alarms = new Map<string, string>();
  for (const { name, reference, accepted: isRight } of valid)
    if (reference !== null && !isRight) alarms.set(reference, name);
  for (const [reference, first] of alarms) names.push(reference, first);
  const newest = newestFirst.find(({ intact }) => intact);
  const largest = largestOf(valid.filter(({ intact }) => intact));
  if (newest !== undefined && largest !== null && isDrop(largest.count, newest.count, dropShare))
    names.push(largest.name);
  return names;
}

/** The snapshots from the last accepted one on; all of them if none was accepted. */
function sinceAccepted<Entry extends Pick<RetentionEntry, "sequence" | "accepted">>(
  entries: readonly Entry[],
): readonly Entry[] {
  const from = Math.max(-1, ...entries.filter(({ accepted }) => accepted).map(({ sequence }) => sequence));
  return entries.filter(({ sequence }) => sequence >= from);
}

function largestOf(entries: readonly RetentionEntry[]): RetentionEntry | null {
  let largest: RetentionEntry | null = null;
  for (const entry of entries) {
    const more = largest === null || entry.count > largest.count;
    const newer = largest !== null && entry.count === largest.count && entry.sequence > largest.sequence;
    if (more || newer) largest = entry;
  }
  return largest;
}

/**
 * The snapshots to compare a new pinset with, the best one first: the one that an unanswered alarm refers to, then
 * from the largest to the smallest. Snapshots from before the last accepted one are left out.
 */
export function chooseReferences(entries: readonly RetentionEntry[]): readonly string[] {
  const valid = sinceAccepted(entries).toSorted((a, b) => b.count - a.count || b.sequence - a.sequence);
  const newest = entries.toSorted((a, b) => a.sequence - b.sequence).at(-1);
  const open = newest === undefined || newest.accepted ? null : newest.reference;
  const first = entries.filter(({ name }) => name === open).map(({ name }) => name);
  return [...new Set([...first, ...valid.map(({ name }) => name)])];
}

/** True if too few of `before` pins remain: none, or a share of more than `share` (0.1 is 10 %) is gone. */
export function isDrop(before: number, remaining: number, share: number): boolean {
  return before > 0 && (remaining === 0 || remaining < before * (1 - share));
}

/** A month as one number. */
function monthOf(ms: number): number {
  const date = new Date(ms);
  return date.getUTCFullYear() * 12 + date.getUTCMonth();
}
