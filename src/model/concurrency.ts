const LEAST = 4;
const FIRST = 16;
const STEP = 1.5;
/** A window is judged after so long, and after so many answers a slot. */
const WINDOW_MS = 500;
const ANSWERS_A_SLOT = 4;
/** A rate that is lower by less may be chance. */
const CHANCE = 0.15;

/**
 * Finds how many requests under way at once a server serves best: ever more, one step back where that
 * made things clearly slower, and half when the server is in trouble.
 */
export class ConcurrencyTuner {
  readonly #most: number;
  #limit: number;
  #raised = false;
  #answers = 0;
  #since: number;
  #rate = 0;

  /** `nowMs`: any clock that goes forward; the same must be given to the other calls. */
  constructor(nowMs: number, most: number) {
    this.#since = nowMs;
    this.#most = Math.max(1, most);
    this.#limit = Math.min(FIRST, this.#most);
  }

  /** How many may be under way. */
  get limit(): number {
    return this.#limit;
  }

  /** One request was answered. */
  answered(nowMs: number): void {
    this.#answers += 1;
    const elapsedMs = nowMs - this.#since;
    if (elapsedMs < WINDOW_MS || this.#answers < this.#limit * ANSWERS_A_SLOT) return;
    const rate = this.#answers / elapsedMs;
    const slower = this.#raised && rate < this.#rate * (1 - CHANCE);
    this.#move(slower ? 1 / STEP : STEP);
    this.#open(rate, nowMs);
  }

  /** The server did not answer, or said that it is busy. */
  troubled(nowMs: number): void {
    this.#move(0.5);
    this.#open(0, nowMs);
  }

  #move(factor: number): void {
    const before = this.#limit;
    this.#limit = Math.min(this.#most, Math.max(LEAST, Math.round(before * factor)));
    this.#raised = this.#limit > before;
  }

  #open(rate: number, nowMs: number): void {
    this.#rate = rate;
    this.#answers = 0;
    this.#since = nowMs;
  }
}
