/** What the order of snapshots has to know of one whose signature was checked. */
interface OrderEntry {
  readonly name: string;
  readonly sequence: number;
  readonly manifestSha256: string;
  readonly previous: { readonly name: string; readonly manifest_sha256: string } | null;
}

/**
 * How a snapshot hangs on the one before it: `first` has none; `linked` fits it; `gap`: that one is not
 * here (retention removes old ones); `broken`: they contradict each other.
 */
export interface OrderVerdict {
  readonly state: "first" | "linked" | "gap" | "broken";
  /** In a sentence, where broken. */
  readonly why: string | null;
}

/** Judges every snapshot by its neighbours. Only entries with a checked signature may come in. */
export function judgeOrder(entries: readonly OrderEntry[]): ReadonlyMap<string, OrderVerdict> {
  const byName = new Map(entries.map((entry) => [entry.name, entry]));
  const verdicts = new Map(entries.map((entry) => [entry.name, judgeLink(entry, byName)]));
  for (const { name, previous } of entries) {
    const before = previous === null ? undefined : byName.get(previous.name);
    if (before === undefined || previous === null) continue;
    if (before.manifestSha256 === previous.manifest_sha256) continue;
    verdicts.set(
      before.name,
      broken(`${name}, taken after it, was signed upon another manifest of that name`),
    );
  }
  return verdicts;
}

function judgeLink(entry: OrderEntry, byName: ReadonlyMap<string, OrderEntry>): OrderVerdict {
  if (entry.previous === null) {
    return entry.sequence === 1
      ? { state: "first", why: null }
      : broken(`it says that it is number ${entry.sequence}, yet names none before it`);
  }
  const before = byName.get(entry.previous.name);
  if (before === undefined) return { state: "gap", why: null };
  if (before.manifestSha256 !== entry.previous.manifest_sha256)
    return broken(`it was signed upon another manifest of ${before.name} than the one that is here`);
  if (before.sequence !== entry.sequence - 1)
    return broken(
      `it is number ${entry.sequence}, and ${before.name} before it is number ${before.sequence}`,
    );
  return { state: "linked", why: null };
}

function broken(why: string): OrderVerdict {
  return { state: "broken", why };
}

/** What retention has to know of one snapshot. */
interface RetentionEntry {
  readonly name: string;
  readonly sequence: number;
  /** The name of the snapshot before it. */
  readonly previous: string | null;
  /** True where its pinset was much smaller than the one before. */
  readonly dropped: boolean;
}

/**
 * Which snapshots may go, oldest first, so that the newest `keep` stay. The last one from before a
 * drop always stays: it is what a restore needs. Only entries whose signature was checked belong in
 * the list: what can't be verified is never chosen.
 */
export function chooseExpired(verified: readonly RetentionEntry[], keep: number): readonly string[] {
  const bySequence = [...verified].sort((a, b) => a.sequence - b.sequence);
  const beforeDrops = new Set(verified.filter((entry) => entry.dropped).map((entry) => entry.previous));
  return bySequence
    .slice(0, Math.max(0, bySequence.length - Math.max(1, keep)))
    .map((entry) => entry.name)
    .filter((name) => !beforeDrops.has(name));
}

/** Whether so many pins after so many is a drop: to zero, or by more than the share (0.1 is a tenth). */
export function isDrop(before: number, after: number, share: number): boolean {
  return before > 0 && (after === 0 || after < before * (1 - share));
}
