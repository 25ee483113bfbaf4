import type { Cluster } from "../../cluster/client.ts";
import { OperatorError } from "../../errors.ts";
import type { Clock } from "../../machine/clock.ts";
import { duration } from "../../units.ts";
import { eachMarked, type PinsetSource } from "../snapshot/verify.ts";
import { planLine, type RestoreSurvey, wantedMarks } from "./restore-plan.ts";

/** A pin that did not come back, as the file of failures has it. */
export interface FailedPin {
  readonly cid: string;
  readonly why: string;
}

/** How sending the pins went. */
export interface RestoreRun {
  readonly pinned: number;
  readonly failed: number;
  readonly elapsedMs: number;
  /** The most requests that were under way at once. */
  readonly concurrency: number;
}

/** What sending needs. */
interface ApplyOptions {
  readonly source: PinsetSource;
  readonly survey: RestoreSurvey;
  readonly cluster: Cluster;
  readonly clock: Clock;
  readonly mendOptions: boolean;
  /** Requests under way at once, at most. */
  readonly concurrency: number;
  /** Takes what failed and what can't be brought back. */
  readonly note: (file: "failed" | "lost", pin: FailedPin) => Promise<void>;
  readonly progress: (line: string) => void;
}

const TRIES = 4;
const FIRST_WAIT_MS = 250;
const PROGRESS_MS = 1000;
/** So many pins one after the other without any answer: the server is gone. */
const SILENCES = 20;

/**
 * Pins what is to be restored, with as many requests at once as the server serves best. One that the
 * server refuses is noted, and the others go on. Throws an OperatorError (unavailable) where the server
 * is gone; whatever was sent until then stays, and a comparison finds the rest.
 */
export async function applyRestore(options: ApplyOptions): Promise<RestoreRun> {
  const { source, survey, clock } = options;
  const sender = new Sender(options);
  const planning = { now: clock.now(), pathLimit: survey.pathLimit };
  await eachMarked(source, survey.marks, wantedMarks(options.mendOptions), async (line, mark) => {
    const { cid, plan } = planLine(line, mark, planning);
    if (plan.kind === "irreproducible") await options.note("lost", { cid, why: plan.why });
    else await sender.send(cid, plan.path);
  });
  return sender.finish();
}

class Sender {
  readonly #options: ApplyOptions;
  readonly #tuner: ConcurrencyTuner;
  readonly #progress: Progress;
  readonly #started = performance.now();
  #running = 0;
  #silences = 0;
  #pinned = 0;
  #failed = 0;
  #most = 0;
  #lastShown = performance.now();
  #wake: (() => void) | null = null;
  #broken: unknown = null;

  constructor(options: ApplyOptions) {
    this.#options = options;
    this.#tuner = new ConcurrencyTuner(this.#started, options.concurrency);
    this.#progress = new Progress("restoring", options.survey.restorable, this.#started);
  }

  /** Resolves once there is room for the next one. */
  async send(cid: string, path: string): Promise<void> {
    while (this.#running >= this.#tuner.limit && this.#broken === null) await this.#change();
    if (this.#broken !== null) throw await this.#drained();
    this.#running += 1;
    this.#most = Math.max(this.#most, this.#running);
    void this.#pin(cid, path)
      .catch((thrown: unknown) => (this.#broken ??= thrown))
      .finally(() => {
        this.#running -= 1;
        this.#wake?.();
      });
  }

  async finish(): Promise<RestoreRun> {
    const broken = await this.#drained();
    if (broken !== null) throw broken;
    this.#show();
    return {
      pinned: this.#pinned,
      failed: this.#failed,
      elapsedMs: performance.now() - this.#started,
      concurrency: this.#most,
    };
  }

  async #pin(cid: string, path: string): Promise<void> {
    const why = await this.#tryToPin(path);
    if (why === null) this.#pinned += 1;
    else {
      this.#failed += 1;
      await this.#options.note("failed", { cid, why });
    }
    if (performance.now() - this.#lastShown >= PROGRESS_MS) this.#show();
  }

  /** Null once it is pinned, else why it is not. */
  async #tryToPin(path: string): Promise<string | null> {
    const { cluster, clock } = this.#options;
    let why = "";
    for (let attempt = 1; attempt <= TRIES; attempt++) {
      if (attempt > 1) await clock.wait(FIRST_WAIT_MS * 2 ** (attempt - 2));
      try {
        const answer = await cluster.pin(path);
        this.#silences = 0;
        if (answer.kind === "done") {
          this.#tuner.answered(performance.now());
          return null;
        }
        why = `${answer.status}: ${answer.message}`;
        if (!answer.busy) return why;
      } catch (thrown) {
        if (!(thrown instanceof OperatorError) || thrown.exit !== "unavailable") throw thrown;
        why = thrown.what;
        this.#silences += 1;
        if (this.#silences >= SILENCES) throw thrown;
      }
      this.#tuner.troubled(performance.now());
    }
    return why;
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = null;
        resolve();
      };
    });
  }

  async #drained(): Promise<unknown> {
    while (this.#running > 0) await this.#change();
    return this.#broken;
  }

  #show(): void {
    this.#lastShown = performance.now();
    const line = this.#progress.line(this.#pinned + this.#failed, this.#lastShown);
    this.#options.progress(`${line}, ${this.#tuner.limit} at once`);
  }
}

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
    const left = this.#rate > 0 ? duration(((this.#total - done) / this.#rate) * 1000) : "unknown time";
    return `${this.#verb}: ${done} of ${this.#total} (${share.toFixed(1)} %), ${Math.round(this.#rate)}/s, ${left} left`;
  }
}
