/** The moment of a write at which the process dies. */
export type KillMoment = "before" | "during" | "after";

/** Thrown when a real run would have been killed. No step may catch it and continue. */
export class Killed extends Error {
  constructor(write: string, moment: KillMoment) {
    super(`killed ${moment} ${write}`);
    this.name = "Killed";
  }
}

interface KillOrder {
  readonly atWrite: number;
  readonly moment: KillMoment;
}

/**
 * Every write of a fake host goes through this gate. It records the writes in order, and can kill the "process" at one of
 * them. A killed process stays dead: each later read or write throws too.
 */
export class WriteGate {
  #writes: string[] = [];
  #order: KillOrder | null = null;
  #death: Killed | null = null;
  #generation = 1;
  #failures: { readonly pattern: RegExp; readonly error: Error }[] = [];

  /** Every write since the start or the last `revive`, in order. */
  get writes(): readonly string[] {
    return this.#writes;
  }

  /** True after a planned kill has happened. */
  get killed(): boolean {
    return this.#death !== null;
  }

  /** The number of this process. Every `revive` increments it. */
  get generation(): number {
    return this.#generation;
  }

  /** Plans a kill at the k-th write from now on (1 is the next one). */
  killAt(k: number, moment: KillMoment): void {
    this.#order = { atWrite: this.#writes.length + k, moment };
  }

  /** Makes the next write with a matching label fail once with this error, before its effect. */
  failOnce(pattern: RegExp, error: Error): void {
    this.#failures.push({ pattern, error });
  }

  /** Starts a new process on the same box: nothing recorded, no kill planned, alive. */
  revive(): void {
    this.#writes = [];
    this.#order = null;
    this.#death = null;
    this.#generation += 1;
  }

  /** Called by every read: a dead process can't read. */
  look(): void {
    if (this.#death !== null) throw this.#death;
  }

  /**
   * Runs one write. `half` is the state that a kill in the middle of the real write leaves. Without it, the real write is
   * atomic.
   */
  async write<T>(label: string, effect: () => T | Promise<T>, half?: () => void): Promise<T> {
    this.look();
    const failure = this.#failures.find(({ pattern }) => pattern.test(label));
    if (failure !== undefined) {
      this.#failures = this.#failures.filter((one) => one !== failure);
      throw failure.error;
    }
    this.#writes.push(label);
    const moment = this.#order?.atWrite === this.#writes.length ? this.#order.moment : null;
    if (moment === "during") half?.();
    if (moment === "before" || moment === "during") throw this.#die(label, moment);
    const result = await effect();
    if (moment === "after") throw this.#die(label, moment);
    return result;
  }

  #die(label: string, moment: KillMoment): Killed {
    this.#death = new Killed(label, moment);
    return this.#death;
  }
}
