/** Frees the slot. A second call does nothing. */
export type Release = () => void;

interface Waiter {
  readonly owners: readonly string[];
  readonly start: (release: Release | null) => void;
  readonly timer: NodeJS.Timeout;
}

/** One owner gets at most this part of the slots. */
const SLOT_SHARE = 1 / 4;
/** One owner gets at most this part of the queue. It is larger: whoever waits for his own slots does not delay others. */
const QUEUE_SHARE = 1 / 2;

/**
 * Limits concurrency. A bounded number of callers waits in a queue. Each caller names its owners (its token, its address),
 * and no owner gets more than a quarter of the slots and half of the queue. So a few slow clients can't keep all others out.
 */
export class Slots {
  #free: number;
  readonly #slotsEach: number;
  readonly #maxWaiting: number;
  readonly #waitingEach: number;
  readonly #maxWaitMs: number;
  readonly #active = new Map<string, number>();
  readonly #waiting = new Map<string, number>();
  /** In the order of arrival. */
  readonly #queue = new Set<Waiter>();

  /** `maxWaitMs`: the longest wait in the queue. */
  constructor(options: { readonly slots: number; readonly maxWaiting: number; readonly maxWaitMs: number }) {
    this.#free = options.slots;
    this.#slotsEach = Math.ceil(options.slots * SLOT_SHARE);
    this.#maxWaiting = options.maxWaiting;
    this.#waitingEach = Math.ceil(options.maxWaiting * QUEUE_SHARE);
    this.#maxWaitMs = options.maxWaitMs;
  }

  /** How many slots are free. */
  get free(): number {
    return this.#free;
  }

  /** The length of the queue. */
  get waiting(): number {
    return this.#queue.size;
  }

  /** A slot. Null if the queue is full or has no place left for this owner, the wait took too long, or `cancelled` was aborted. */
  async take(owners: readonly string[], cancelled: AbortSignal): Promise<Release | null> {
    if (cancelled.aborted) return null;
    if (this.#free > 0 && this.#mayStart(owners)) return this.#start(owners);
    const hasPlace =
      this.#queue.size < this.#maxWaiting &&
      owners.every((owner) => (this.#waiting.get(owner) ?? 0) < this.#waitingEach);
    return hasPlace ? this.#wait(owners, cancelled) : null;
  }

  #mayStart(owners: readonly string[]): boolean {
    return owners.every((owner) => (this.#active.get(owner) ?? 0) < this.#slotsEach);
  }

  #wait(owners: readonly string[], cancelled: AbortSignal): Promise<Release | null> {
    return new Promise((resolve) => {
      const leave = (): void => waiter.start(null);
      const waiter: Waiter = {
        owners,
        start: (release) => {
          clearTimeout(waiter.timer);
          cancelled.removeEventListener("abort", leave);
          this.#queue.delete(waiter);
          count(this.#waiting, owners, -1);
          resolve(release);
        },
        timer: setTimeout(leave, this.#maxWaitMs),
      };
      cancelled.addEventListener("abort", leave, { once: true });
      this.#queue.add(waiter);
      count(this.#waiting, owners, 1);
    });
  }

  #start(owners: readonly string[]): Release {
    this.#free -= 1;
    count(this.#active, owners, 1);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      this.#free += 1;
      count(this.#active, owners, -1);
      for (const next of this.#queue) {
        if (!this.#mayStart(next.owners)) continue;
        next.start(this.#start(next.owners));
        return;
      }
    };
  }
}

/** An owner without any is not kept, so that the map does not grow with every token. */
function count(counts: Map<string, number>, owners: readonly string[], change: 1 | -1): void {
  for (const owner of owners) {
    const now = (counts.get(owner) ?? 0) + change;
    if (now > 0) counts.set(owner, now);
    else counts.delete(owner);
  }
}
