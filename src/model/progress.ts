/** How far a long run is: a line for people, with its rate of late and the time left. */
export class Progress {
  readonly #total: number;
  readonly #verb: string;
  #rate = 0;
  #lastDone = 0;
  #lastMs: number;

  /** `verb`: what is done, "restoring". `nowMs`: any clock that goes forward. */
  constructor(verb: string, total: number, nowMs: number) {
    this.#verb = verb;
    this.#total = total;
    this.#lastMs = nowMs;
  }

  /** The line; call it at most every second or so. */
  line(done: number, nowMs: number): string {
    const elapsedMs = nowMs - this.#lastMs;
    if (elapsedMs > 0) {
      const rate = ((done - this.#lastDone) / elapsedMs) * 1000;
      this.#rate = this.#rate === 0 ? rate : this.#rate * 0.7 + rate * 0.3;
      this.#lastDone = done;
      this.#lastMs = nowMs;
    }
    const share = this.#total === 0 ? 100 : (100 * done) / this.#total;
    const left = this.#rate > 0 ? describeSeconds((this.#total - done) / this.#rate) : "unknown time";
    return `${this.#verb}: ${done} of ${this.#total} (${share.toFixed(1)} %), ${Math.round(this.#rate)}/s, ${left} left`;
  }
}

/** A duration for people: `42 s`, `3 min 20 s`, `2 h 5 min`. */
export function describeSeconds(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
