import type { Cluster } from "../cluster/client.ts";
import { OperatorError } from "../errors.ts";
import type { Clock } from "../host/host.ts";
import { ConcurrencyTuner } from "../model/concurrency.ts";
import { Progress } from "../model/progress.ts";
import { eachMarked, type PinsetSource } from "./pinset-source.ts";
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
export interface ApplyOptions {
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
