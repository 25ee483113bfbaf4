import { decimalBytes } from "../units.ts";

/** What kubo reports about its repository and the disk under it. */
export interface SpaceReading {
  /** The size of the repository. */
  readonly usedBytes: number;
  /** KUBO_STORAGE_MAX. Kubo itself does not enforce it. */
  readonly limitBytes: number;
  /** What kubo can still write on that disk, whoever else uses it. */
  readonly availableBytes: number;
}

/** What must hold: uploads stop before either is passed. */
export interface SpaceRules {
  /** DISK_RESERVE: uploads leave this much of the disk free. */
  readonly reserveBytes: number;
  /** The size of the largest block. */
  readonly blockBytes: number;
}

/** The state of the space, for `status`. `todo` is null if there is nothing to do. */
export interface SpaceState {
  readonly state: "ok" | "attention" | "unknown";
  readonly sentence: string;
  readonly todo: string | null;
}

/** From here on, the operator should plan for more space. */
const NEARLY_FULL = 0.9;

/** How many bytes uploads may still add, and which of the two bounds decides. May be negative. */
export function roomOf(
  { usedBytes, limitBytes, availableBytes }: SpaceReading,
  { reserveBytes }: Pick<SpaceRules, "reserveBytes">,
): { readonly bytes: number; readonly bound: "limit" | "disk" } {
  const toLimit = limitBytes - usedBytes;
  const toReserve = availableBytes - reserveBytes;
  return toLimit <= toReserve ? { bytes: toLimit, bound: "limit" } : { bytes: toReserve, bound: "disk" };
}

/** Judges what kubo reports; null if it reports nothing. A node without room for one more block is full. */
export function judgeSpace(reading: SpaceReading | null, rules: SpaceRules): SpaceState {
  if (reading === null)
    return { state: "unknown", sentence: "kubo does not report it", todo: "see the line of kubo" };
  const { usedBytes, limitBytes, availableBytes } = reading;
  const percent = ((limitBytes > 0 ? usedBytes / limitBytes : 1) * 100).toFixed(1);
  const numbers = `${decimalBytes(usedBytes)} of ${decimalBytes(limitBytes)} used (${percent} %), disk ${decimalBytes(availableBytes)} free`;
  const room = roomOf(reading, rules);
  if (room.bytes < rules.blockBytes) {
    const reserve = `with a reserve of ${decimalBytes(rules.reserveBytes)}`;
    return room.bound === "limit"
      ? { state: "attention", sentence: `full: ${numbers}; uploads are refused`, todo: RAISE_LIMIT }
      : {
          state: "attention",
          sentence: `full: ${numbers}, ${reserve}; uploads are refused`,
          todo: FREE_DISK,
        };
  }
  if (usedBytes >= limitBytes * NEARLY_FULL)
    return { state: "attention", sentence: `nearly full: ${numbers}`, todo: RAISE_LIMIT };
  return { state: "ok", sentence: numbers, todo: null };
}

const RAISE_LIMIT = "Raise KUBO_STORAGE_MAX, or add a storage node to the pool.";
const FREE_DISK = "Free or enlarge the disk of kubo's data: pins of the cluster can still fill it.";
