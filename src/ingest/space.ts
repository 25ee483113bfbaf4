import { roomOf, type SpaceReading } from "../settings/space-limits.ts";

/** Space that is kept for one block. */
export interface Claim {
  /** Gives the space back, except what was perhaps stored: `storedBytes`. A second call does nothing. */
  settle(storedBytes: number): void;
}

/** The answer to a claim. `unknown`: kubo did not report its space. */
export type ClaimResult =
  | { readonly kind: "claimed"; readonly claim: Claim }
  | { readonly kind: "full" }
  | { readonly kind: "unknown" };

/** How old a reading may be. What was stored since is counted, so only the writes of others are seen late. */
const FRESH_MS = 5_000;

/** What a file costs beside its bytes: kubo counts the directory that it may need, and the disk has blocks of this size. */
export const OVERHEAD_BYTES = 4_096;

/**
 * Keeps uploads within the limit of the repository and above the reserve of the disk. Everything that is under way, or was
 * stored since the last reading began, is counted, so that concurrent uploads can't pass the bounds together.
 */
export class Space {
  readonly #read: () => Promise<SpaceReading | null>;
  readonly #reserveBytes: number;
  readonly #now: () => number;
  #reading: { readonly leftBytes: number; readonly storedBefore: number; readonly at: number } | null = null;
  #pending: Promise<void> | null = null;
  /** Since the start of the process. */
  #storedBytes = 0;
  #underWayBytes = 0;

  /** `now`: milliseconds of a monotonic clock. */
  constructor(options: {
    readonly read: () => Promise<SpaceReading | null>;
    readonly reserveBytes: number;
    readonly now: () => number;
  }) {
    this.#read = options.read;
    this.#reserveBytes = options.reserveBytes;
    this.#now = options.now;
  }

  /** Claims space for a block of at most this size. */
  async claim(sizeBytes: number): Promise<ClaimResult> {
    if (this.#reading === null || this.#now() - this.#reading.at >= FRESH_MS) {
      this.#pending ??= this.#measure().finally(() => (this.#pending = null));
      await this.#pending;
    }
    if (this.#reading === null) return { kind: "unknown" };
    const left = this.leftBytes() ?? 0;
    const neededBytes = sizeBytes + OVERHEAD_BYTES;
    return left < neededBytes ? { kind: "full" } : { kind: "claimed", claim: this.#take(neededBytes) };
  }

  /** What is left by the last reading, without what was stored or claimed since; null: there is none. Asks nobody. */
  leftBytes(): number | null {
    if (this.#reading === null) return null;
    const { leftBytes, storedBefore } = this.#reading;
    return leftBytes - (this.#storedBytes - storedBefore) - this.#underWayBytes;
  }

  async #measure(): Promise<void> {
    const [storedBefore, at] = [this.#storedBytes, this.#now()];
    this.#reading = null;
    const reading = await this.#read();
    if (reading === null) return;
    const { bytes: leftBytes } = roomOf(reading, { reserveBytes: this.#reserveBytes });
    this.#reading = { leftBytes, storedBefore, at };
  }

  #take(sizeBytes: number): Claim {
    this.#underWayBytes += sizeBytes;
    let open = true;
    return {
      settle: (storedBytes) => {
        if (!open) return;
        open = false;
        this.#underWayBytes -= sizeBytes;
        if (storedBytes > 0) this.#storedBytes += storedBytes + OVERHEAD_BYTES;
      },
    };
  }
}
