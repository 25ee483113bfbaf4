/** What retention has to know of one snapshot. */
export interface RetentionEntry {
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
