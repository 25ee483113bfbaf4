const LEAST = 4;
const STEP = 1.5;
/** A window is judged after so long, and after so many answers a slot. */
const WINDOW_MS = 400;
const ANSWERS_A_SLOT = 4;
/** Rates closer than this count as equal. */
const SAME = 0.05;

/**
 * Finds how many requests under way at once a server serves best: it goes on in the direction that made
 * things faster, turns round where they became slower, and halves when the server is in trouble.
 */
export class ConcurrencyTuner {
  readonly #most: number;
  #limit = 8;
  #rising = true;
  #answers = 0;
  #since: number;
  #rate = 0;

  /** `nowMs`: any clock that goes forward; the same must be given to the other calls. */
  constructor(nowMs: number, most: number) {
    this.#since = nowMs;
    this.#most = Math.max(LEAST, most);
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
    if (rate < this.#rate * (1 - SAME)) this.#rising = !this.#rising;
    if (Math.abs(rate - this.#rate) > this.#rate * SAME) this.#move(this.#rising ? STEP : 1 / STEP);
    this.#open(rate, nowMs);
  }

  /** The server did not answer, or said that it is busy. */
  troubled(nowMs: number): void {
    this.#rising = false;
    this.#move(0.5);
    this.#open(0, nowMs);
  }

  #move(factor: number): void {
    this.#limit = Math.min(this.#most, Math.max(LEAST, Math.round(this.#limit * factor)));
  }

  #open(rate: number, nowMs: number): void {
    this.#rate = rate;
    this.#answers = 0;
    this.#since = nowMs;
  }
}
