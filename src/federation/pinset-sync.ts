/** How long a node waits for its pinset, before it is left to go on by itself. */
export const SYNC_DEADLINE_MS = 180_000;

/** How many pins a master's own pinset holds, or why that is not known: the end of a sentence. */
export type MasterCount =
  | {
      readonly pins: number;
      /** By the master's clock; a long pinset is counted rarely, so it may be minutes ago. */
      readonly countedAt: Date;
    }
  | { readonly unknown: string };

/** How far this node is by now. */
export interface Sync {
  /** As listed last; null while no list has come whole. */
  readonly own: number | null;
  readonly master: MasterCount;
  /** What the master counted before that, since this wait began. */
  readonly before: number | null;
}

/** Whether a count has stopped changing. */
export interface Rest {
  /** As far as a count alone tells; one look is enough on a node that has been up for long. */
  readonly likely: boolean;
  /** Though a master's news must have come since this wait began. */
  readonly surely: boolean;
}

/** What a master said of its own pinset. */
export type MasterCounts = Omit<Sync, "own">;

/**
 * No pins on both sides are no proof: a master that has not synced itself counts none either. Nor are more
 * than the master's: what was unpinned while this node was away hides that as many new ones are missing.
 * Where a busy master's count moves, one between two of its counts will do.
 */
export function isEnough(own: number, { master, before }: MasterCounts, { likely, surely }: Rest): boolean {
  if ("unknown" in master || (own === 0 && master.pins === 0)) return likely;
  const [least, most] = rangeOf(master.pins, before);
  return own >= least && (own <= most || surely);
}

function rangeOf(pins: number, before: number | null): readonly [least: number, most: number] {
  return before === null ? [pins, pins] : [Math.min(pins, before), Math.max(pins, before)];
}

/** True if this node has more pins than the master says. */
export function hasMore({ own, master, before }: Sync): boolean {
  return own !== null && "pins" in master && own > rangeOf(master.pins, before)[1];
}

/** How far it is, while it is waited for. */
export function progressOf(sync: Sync, age: string): string {
  const { own, master } = sync;
  if (own === null) return "waiting for ipfs-cluster to list its pins whole";
  if ("pins" in master && hasMore(sync))
    return `${own} pins known here, more than the master's ${master.pins}${age}, waiting for its news`;
  if ("pins" in master && master.pins > 0)
    return `${own} of ${master.pins} pins known here${age}, waiting for the rest`;
  return `${own} pins known here, waiting ${own > 0 ? "for more" : "for the first news of the masters"}`;
}

/** What came of the wait. */
export function resultOf({ own, master, before }: Sync, age: string): string {
  const count = own ?? 0;
  if ("unknown" in master)
    return `${count} pins known here; the master's count is not known (${master.unknown})`;
  if (count === 0 && master.pins === 0) return `No pins known here, and the master counts none either${age}`;
  if (count === master.pins) return `${count} of ${master.pins} pins known here${age}`;
  const [least, most] = rangeOf(master.pins, before);
  return `${count} pins known here; the master counted ${least} to ${most} meanwhile`;
}

/** Why the wait has ended before the pinset was whole. */
export function warningOf(sync: Sync, age: string): string {
  const { own, master } = sync;
  const minutes = SYNC_DEADLINE_MS / 60_000;
  const later = "It goes on by itself; run again later, or see `status`, to see how far it is.";
  if (own === null)
    return `ipfs-cluster did not list its pins whole in ${minutes} minutes, so how far it is can't be told. ${later}`;
  if ("pins" in master && hasMore(sync))
    return `${own} pins are known here, more than the master's ${master.pins}${age}: this node has not caught up with it. ${later}`;
  if ("pins" in master)
    return `${own} of ${master.pins} pins are known here after ${minutes} minutes${age}: this node still syncs. ${later}`;
  return `The pinset still grows after ${minutes} minutes (${own} pins so far; the master's count is not known: ${master.unknown}). ${later}`;
}

/** A node asks every ten seconds, and a master tells a count again for five: such an age is not worth a word. */
const YOUNG_MS = 20_000;
const MINUTE_MS = 60_000;

/** How long ago a master counted its pins, for behind the count; nothing where that was just now. */
export function ageOfCount(ageMs: number): string {
  if (ageMs <= YOUNG_MS) return "";
  const age =
    ageMs < 2 * MINUTE_MS
      ? `${Math.floor(ageMs / 1000)} seconds`
      : `${Math.floor(ageMs / MINUTE_MS)} minutes`;
  return ` (the master counted ${age} ago)`;
}
