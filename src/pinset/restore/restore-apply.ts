import type { Cluster } from "../../cluster/client.ts";
import { OperatorError } from "../../errors.ts";
import type { Clock } from "../../machine/clock.ts";
import { duration } from "../../units.ts";
import { eachMarked, type PinsetSource } from "../snapshot/verify.ts";
import { planLine, type RestoreSurvey, wantedMarks } from "./restore-plan.ts";

/** A pin that was not restored, as it is written to the file of failures. */
export interface FailedPin {
  readonly cid: string;
  readonly why: string;
}

/** The result of sending the pins. */
export interface RestoreRun {
  readonly pinned: number;
  readonly failed: number;
  readonly elapsedMs: number;
  /** The highest number of requests at the same time. */
  readonly concurrency: number;
}

/** What applyRestore needs. */
interface ApplyOptions {
  readonly source: PinsetSource;
  readonly survey: RestoreSurvey;
  readonly cluster: Cluster;
  readonly clock: Clock;
  readonly repairOptions: boolean;
  /** The highest allowed number of requests at the same time. */
  readonly concurrency: number;
  /** Records a pin that failed or that cannot be restored. */
  readonly note: (file: "failed" | "lost", pin: FailedPin) => Promise<void>;
  readonly progress: (line: string) => void;
}

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5000;
const PROGRESS_MS = 1000;
/** After this time without one pin that was accepted or refused, the server counts as gone. A pin that the server is too busy for is tried as long. */
const SILENCE_MS = 60_000;

/**
 * Sends the pins to restore, with the number of parallel requests at which the server is fastest. If the server
 * refuses a pin, the pin is recorded and the others continue. If it does not answer, each pin is sent again and again.
 * After a minute of that it throws an OperatorError (unavailable); what was sent before stays, and the next comparison
 * finds the rest.
 */
export async function applyRestore(options: ApplyOptions): Promise<RestoreRun> {
  const { source, survey, clock } = options;
  const sender = new Sender(options);
  const planning = { now: clock.now(), pathLimit: survey.pathLimit };
  await eachMarked(source, survey.marks, wantedMarks(options.repairOptions), async (line, mark) => {
    const { cid, plan } = planLine(line, mark, planning);
    if (plan.kind === "not-restorable") await options.note("lost", { cid, why: plan.why });
    else await sender.send(cid, plan.path);
  });
  return sender.finish();
}

class Sender {
  readonly #options: ApplyOptions;
  readonly #tuner: ConcurrencyTuner;
  readonly #progress: Progress;
  readonly #started: number;
  #running = 0;
  /** When the server first gave no result after the last one that it gave; null while it gives results. */
  #silentSinceMs: number | null = null;
  #pinned = 0;
  #failed = 0;
  #most = 0;
  #lastReport: number;
  #wake: (() => void) | null = null;
  #failure: unknown = null;

  constructor(options: ApplyOptions) {
    this.#options = options;
    this.#started = options.clock.monotonicMs();
    this.#lastReport = this.#started;
    this.#tuner = new ConcurrencyTuner(this.#started, options.concurrency);
    this.#progress = new Progress("restoring", options.survey.restorable, this.#started);
  }

  /** Waits until the limit allows one more request, then starts it. */
  async send(cid: string, path: string): Promise<void> {
    while (this.#running >= this.#tuner.limit && this.#failure === null) await this.#waitForChange();
    if (this.#failure !== null) throw await this.#waitForAll();
    this.#running += 1;
    this.#most = Math.max(this.#most, this.#running);
    void this.#pin(cid, path)
      .catch((thrown: unknown) => (this.#failure ??= thrown))
      .finally(() => {
        this.#running -= 1;
        this.#wake?.();
      });
  }

  async finish(): Promise<RestoreRun> {
    const failure = await this.#waitForAll();
    if (failure !== null) throw failure;
    this.#reportProgress();
    return {
      pinned: this.#pinned,
      failed: this.#failed,
      elapsedMs: this.#options.clock.monotonicMs() - this.#started,
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
    this.#reportAtTimes();
  }

  /** Null if it was pinned, else the reason why it was not. */
  async #tryToPin(path: string): Promise<string | null> {
    const { cluster, clock } = this.#options;
    let busySinceMs: number | null = null;
    for (let waitMs = FIRST_WAIT_MS; ; waitMs = Math.min(LONGEST_WAIT_MS, waitMs * 2)) {
      try {
        const answer = await cluster.pin(path);
        if (answer.kind === "done") {
          this.#silentSinceMs = null;
          this.#tuner.recordAnswer(clock.monotonicMs());
          return null;
        }
        const why = `${answer.status}: ${answer.message}`;
        if (!answer.busy) {
          this.#silentSinceMs = null;
          return why;
        }
        busySinceMs ??= clock.monotonicMs();
        if (clock.monotonicMs() - busySinceMs >= SILENCE_MS) return why;
        this.#noteSilence(`The last answer was ${why}`, 2 * SILENCE_MS);
      } catch (thrown) {
        if (!(thrown instanceof OperatorError) || thrown.exit !== "unavailable") throw thrown;
        this.#noteSilence(thrown.what, SILENCE_MS);
      }
      this.#tuner.recordFailure(clock.monotonicMs());
      this.#reportAtTimes();
      await clock.wait(waitMs);
      if (this.#failure !== null) throw this.#failure;
    }
  }

  /** Throws if there was no result for this long. `last`: the last answer or error, in a sentence. */
  #noteSilence(last: string, maxMs: number): void {
    const now = this.#options.clock.monotonicMs();
    this.#silentSinceMs ??= now;
    const silentMs = now - this.#silentSinceMs;
    if (silentMs < maxMs) return;
    throw new OperatorError({
      exit: "unavailable",
      what: `For ${duration(silentMs)}, no pin was accepted. ${last}`,
    });
  }

  #waitForChange(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = null;
        resolve();
      };
    });
  }

  async #waitForAll(): Promise<unknown> {
    while (this.#running > 0) await this.#waitForChange();
    return this.#failure;
  }

  #reportAtTimes(): void {
    if (this.#options.clock.monotonicMs() - this.#lastReport >= PROGRESS_MS) this.#reportProgress();
  }

  #reportProgress(): void {
    const now = this.#options.clock.monotonicMs();
    this.#lastReport = now;
    const line = this.#progress.line(this.#pinned + this.#failed, now);
    const silentMs = this.#silentSinceMs === null ? 0 : now - this.#silentSinceMs;
    const state =
      silentMs < PROGRESS_MS
        ? `${this.#tuner.limit} at once`
        : `no answer for ${duration(silentMs)}, trying again`;
    this.#options.progress(`${line}, ${state}`);
  }
}

const MIN_LIMIT = 4;
const FIRST_LIMIT = 16;
const STEP = 1.5;
/** The rate is evaluated after this time, and after this many answers per parallel request. */
const WINDOW_MS = 500;
const ANSWERS_PER_SLOT = 4;
/** If the rate is lower by less than this share, the difference may be noise. */
const NOISE = 0.15;

/**
 * Finds the number of parallel requests at which a server is fastest. It increases the number step by step, goes
 * one step back if that made the server clearly slower, and halves the number if the server fails or is busy.
 */
export class ConcurrencyTuner {
  readonly #most: number;
  #limit: number;
  #increased = false;
  #answers = 0;
  #since: number;
  #rate = 0;

  /** `nowMs`: the time of any monotonic clock; all calls must use the same clock. */
  constructor(nowMs: number, most: number) {
    this.#since = nowMs;
    this.#most = Math.max(1, most);
    this.#limit = Math.min(FIRST_LIMIT, this.#most);
  }

  /** How many requests may run at the same time. */
  get limit(): number {
    return this.#limit;
  }

  /** Call it when a request was answered. */
  recordAnswer(nowMs: number): void {
    this.#answers += 1;
    const elapsedMs = nowMs - this.#since;
    if (elapsedMs < WINDOW_MS || this.#answers < this.#limit * ANSWERS_PER_SLOT) return;
    const rate = this.#answers / elapsedMs;
    const slower = this.#increased && rate < this.#rate * (1 - NOISE);
    this.#multiplyLimit(slower ? 1 / STEP : STEP);
    this.#startWindow(rate, nowMs);
  }

  /** Call it when the server did not answer, or answered that it is busy. */
  recordFailure(nowMs: number): void {
    this.#multiplyLimit(0.5);
    this.#startWindow(0, nowMs);
  }

  #multiplyLimit(factor: number): void {
    const before = this.#limit;
    this.#limit = Math.min(this.#most, Math.max(MIN_LIMIT, Math.round(before * factor)));
    this.#increased = this.#limit > before;
  }

  #startWindow(rate: number, nowMs: number): void {
    this.#rate = rate;
    this.#answers = 0;
    this.#since = nowMs;
  }
}

/** The progress of a long run: a line for people, with the recent rate and the time left. */
export class Progress {
  readonly #total: number;
  readonly #verb: string;
  #rate = 0;
  #lastDone = 0;
  #lastMs: number;

  /** `verb`: the action, such as "restoring". `nowMs`: the time of any monotonic clock. */
  constructor(verb: string, total: number, nowMs: number) {
    this.#verb = verb;
    this.#total = total;
    this.#lastMs = nowMs;
  }

  /** The line. Call it about once a second at most. */
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
