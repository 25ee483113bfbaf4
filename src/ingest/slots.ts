/** Gives the slot back; a second call does nothing. */
export type Release = () => void;

interface Waiter {
  readonly start: (release: Release | null) => void;
  readonly timer: NodeJS.Timeout;
}

/** So many may work at once; a bounded number waits in line, first come first served. */
export class Slots {
  #free: number;
  readonly #mostWaiting: number;
  readonly #patienceMs: number;
  readonly #line = new Set<Waiter>();

  /** `patienceMs`: how long one waits in line at most. */
  constructor(options: {
    readonly slots: number;
    readonly mostWaiting: number;
    readonly patienceMs: number;
  }) {
    this.#free = options.slots;
    this.#mostWaiting = options.mostWaiting;
    this.#patienceMs = options.patienceMs;
  }

  /** How many stand in line. */
  get waiting(): number {
    return this.#line.size;
  }

  /** A slot, or null where the line is full, the patience is over, or `gone` says that nobody wants it any more. */
  async take(gone: AbortSignal): Promise<Release | null> {
    if (gone.aborted) return null;
    if (this.#free > 0) {
      this.#free -= 1;
      return this.#releaser();
    }
    if (this.#line.size >= this.#mostWaiting) return null;
    return this.#wait(gone);
  }

  #wait(gone: AbortSignal): Promise<Release | null> {
    return new Promise((resolve) => {
      const leave = (): void => waiter.start(null);
      const waiter: Waiter = {
        start: (release) => {
          clearTimeout(waiter.timer);
          gone.removeEventListener("abort", leave);
          this.#line.delete(waiter);
          resolve(release);
        },
        timer: setTimeout(leave, this.#patienceMs),
      };
      gone.addEventListener("abort", leave, { once: true });
      this.#line.add(waiter);
    });
  }

  #releaser(): Release {
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      const [next] = this.#line;
      if (next === undefined) this.#free += 1;
      else next.start(this.#releaser());
    };
  }
}
