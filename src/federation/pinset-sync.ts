import { countOf } from "../units.ts";

/** How long a join waits for the pinset. After that, syncing continues in the background. */
export const SYNC_DEADLINE_MS = 180_000;

/** How many pins a master's own pinset has, or why that is unknown (the end of a sentence). */
export type MasterCount =
  | {
      readonly pins: number;
      /** By the master's clock. A large pinset is counted rarely, so it may be minutes ago. */
      readonly countedAt: Date;
    }
  | { readonly unknown: string };

/** The current state of the sync. */
export interface Sync {
  /** From the last listing. Null until a complete list has arrived. */
  readonly own: number | null;
  readonly master: MasterCount;
  /** The master's previous count since this wait began. */
  readonly previousPins: number | null;
}

/** Whether a count has stopped changing. */
export interface Stability {
  /** Judged by the count alone. On a node that has been up for long, one count is enough. */
  readonly isLikely: boolean;
  /** True only after the time in which a master must have sent its state since this wait began. */
  readonly isCertain: boolean;
}

/** A master's counts of its own pinset. */
export type MasterCounts = Omit<Sync, "own">;

/**
 * True if this node's pinset counts as synced. Zero pins on both sides prove that the pool is empty only if it has one
 * master: another one that has not synced yet also counts zero. More pins than the master's prove nothing either: pins that were removed while this node was
 * offline can hide that as many new ones are missing. If a busy master's count changes, any number between its last
 * two counts is enough.
 */
export function isSynced(
  own: number,
  { master, previousPins }: MasterCounts,
  { isLikely, isCertain, hasOneMaster }: Stability & { readonly hasOneMaster: boolean },
): boolean {
  if ("unknown" in master) return isLikely;
  if (own === 0 && master.pins === 0) return hasOneMaster || isLikely;
  const [least, most] = rangeOf(master.pins, previousPins);
  return own >= least && (own <= most || isCertain);
}

function rangeOf(pins: number, previousPins: number | null): readonly [least: number, most: number] {
  return previousPins === null ? [pins, pins] : [Math.min(pins, previousPins), Math.max(pins, previousPins)];
}

/** True if this node has more pins than the master reports. */
export function hasMoreThanMaster({ own, master, previousPins }: Sync): boolean {
  return own !== null && "pins" in master && own > rangeOf(master.pins, previousPins)[1];
}

/** The progress line during the wait. */
export function progressOf(sync: Sync, age: string): string {
  const { own, master } = sync;
  if (own === null) return "waiting for a complete pin list from ipfs-cluster";
  if ("pins" in master && hasMoreThanMaster(sync))
    return `${own} pins known here, more than the master's ${master.pins}${age}, waiting for an update from the master`;
  if ("pins" in master && master.pins > 0)
    return `${own} of ${master.pins} pins known here${age}, waiting for the rest`;
  return `${countOf(own, "pin")} known here, waiting ${own > 0 ? "for more" : "for the first update from a master"}`;
}

/** The result line after the wait. */
export function resultOf({ own, master, previousPins }: Sync, age: string): string {
  const count = own ?? 0;
  if ("unknown" in master)
    return `${countOf(count, "pin")} known here; the master's count is unknown (${master.unknown})`;
  if (count === 0 && master.pins === 0) return `No pins known here, and none on the master${age}`;
  if (count === master.pins) return `${count} of ${master.pins} pins known here${age}`;
  const [least, most] = rangeOf(master.pins, previousPins);
  return `${countOf(count, "pin")} known here; the master counted ${least} to ${most} during the wait`;
}

/** Why the wait ended before the pinset was complete. */
export function warningOf(sync: Sync, age: string): string {
  const { own, master } = sync;
  const minutes = SYNC_DEADLINE_MS / 60_000;
  const later =
    "Syncing continues in the background. To check its progress, run again later or use `status`.";
  if (own === null)
    return `ipfs-cluster did not return a complete pin list in ${minutes} minutes, so the progress is unknown. ${later}`;
  if ("pins" in master && hasMoreThanMaster(sync))
    return `${own} pins are known here, more than the master's ${master.pins}${age}: this node is not in sync with the master yet. ${later}`;
  if ("pins" in master)
    return `${own} of ${master.pins} pins are known here after ${minutes} minutes${age}: this node is still syncing. ${later}`;
  return `The pinset is still growing after ${minutes} minutes (${own} pins so far; the master's count is unknown: ${master.unknown}). ${later}`;
}

/** A node asks every ten seconds, and a master caches a count for five: an age up to this is normal and not printed. */
const YOUNG_MS = 20_000;
const MINUTE_MS = 60_000;

/** How long ago a master counted its pins, to print after the count. Empty if the count is recent. */
export function ageOfCount(ageMs: number): string {
  if (ageMs <= YOUNG_MS) return "";
  const age =
    ageMs < 2 * MINUTE_MS
      ? `${Math.floor(ageMs / 1000)} seconds`
      : `${Math.floor(ageMs / MINUTE_MS)} minutes`;
  return ` (the master counted ${age} ago)`;
}
