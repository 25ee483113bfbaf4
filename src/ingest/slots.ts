/** Frees the slot. A second call does nothing. */
export type Release = () => void;

interface Waiter {
  readonly start: (release: Release | null) => void;
  readonly timer: NodeJS.Timeout;
}

/** Limits concurrency. A bounded number of callers waits in a first-in, first-out queue. */
export class Slots {
  #free: number;
  readonly #maxWaiting: number;
  readonly #maxWaitMs: number;
  readonly #queue = new Set<Waiter>();

  /** `maxWaitMs`: the longest wait in the queue. */
  constructor(options: { readonly slots: number; readonly maxWaiting: number; readonly maxWaitMs: number }) {
    this.#free = options.slots;
    this.#maxWaiting = options.maxWaiting;
    this.#maxWaitMs = options.maxWaitMs;
  }

  /** The length of the queue. */
  get waiting(): number {
    return this.#queue.size;
  }

  /** A slot. Null if the queue is full, the wait took too long, or `cancelled` was aborted. */
  async take(cancelled: AbortSignal): Promise<Release | null> {
    if (cancelled.aborted) return null;
    if (this.#free > 0) {
      this.#free -= 1;
      return this.#releaser();
    }
    if (this.#queue.size >= this.#maxWaiting) return null;
    return this.#wait(cancelled);
  }

  #wait(cancelled: AbortSignal): Promise<Release | null> {
    return new Promise((resolve) => {
      const leave = (): void => waiter.start(null);
      const waiter: Waiter = {
        start: (release) => {
          clearTimeout(waiter.timer);
          cancelled.removeEventListener("abort", leave);
          this.#queue.delete(waiter);
          resolve(release);
        },
        timer: setTimeout(leave, this.#maxWaitMs),
      };
      cancelled.addEventListener("abort", leave, { once: true });
      this.#queue.add(waiter);
    });
  }

  #releaser(): Release {
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      const [next] = this.#queue;
      if (next === undefined) this.#free += 1;
      else next.start(this.#releaser());
    };
  }
}
