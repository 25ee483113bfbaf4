/** The moment of a write at which the process dies. */
export type KillMoment = "before" | "during" | "after";

/** Thrown where a real run would have been killed; no step may catch it and go on. */
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
 * The one door that every write of a fake host goes through: it records them in order, and can kill the
 * "process" at one of them. A killed process stays dead: each later look or write throws too.
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

  /** True once an ordered kill has landed. */
  get killed(): boolean {
    return this.#death !== null;
  }

  /** Which process this is; goes up with every `revive`. */
  get generation(): number {
    return this.#generation;
  }

  /** Orders the death at the k-th write from now on (1 is the next one). */
  killAt(k: number, moment: KillMoment): void {
    this.#order = { atWrite: this.#writes.length + k, moment };
  }

  /** Lets the next write whose label matches fail with this error, before its effect; once. */
  failOnce(pattern: RegExp, error: Error): void {
    this.#failures.push({ pattern, error });
  }

  /** A new process over the same box: nothing recorded, nothing ordered, alive. */
  revive(): void {
    this.#writes = [];
    this.#order = null;
    this.#death = null;
    this.#generation += 1;
  }

  /** Called by every look: a dead process sees nothing. */
  look(): void {
    if (this.#death !== null) throw this.#death;
  }

  /**
   * Runs one write. `half` is the state that a kill in the middle of the real thing leaves behind; left
   * out, the real thing is whole or not at all.
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
