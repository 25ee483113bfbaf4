import type { RunEvent } from "../engine/events.ts";
import { duration, visible } from "../units.ts";
import type { Reporter } from "./reporter.ts";
import { errorLines, fold, hang, oneLine, planLines, progressLine, table, wrap } from "./text.ts";

/** Where lines are written to. */
export interface Streams {
  readonly out: (line: string) => void;
  readonly err: (line: string) => void;
}

/** Streams that show every invisible character as an escape. All lines of a run leave through these. */
export function visibleStreams({ out, err }: Streams): Streams {
  return { out: (line) => out(visible(line)), err: (line) => err(visible(line)) };
}

const LONG_STEP_MS = 2000;
const STEP_PROGRESS_EVERY_MS = 30_000;
const RUN_PROGRESS_EVERY_MS = 10_000;

/** The step that is running. */
interface Running {
  readonly step: string;
  summary: string;
  /** When its last line was printed; null before the first. */
  printedMs: number | null;
  printed: string;
  readonly timer: NodeJS.Timeout;
}

/** What a step waits for. */
interface Wait {
  /** When the wait began. */
  readonly sinceMs: number;
  readonly printedMs: number | null;
  readonly printed: string;
}

/**
 * Plain lines for logs, cron and CI. A step prints one line when it is done. If it takes longer than two seconds,
 * it also prints one when that is clear, and its progress at most every 30 seconds. What it waits for is printed after two seconds, also if it
 * changes nothing. `now` is in milliseconds of a
 * monotonic clock.
 */
export function createLines(given: Streams, now: () => number): Reporter {
  const shown = visibleStreams(given);
  const each = (write: (line: string) => void) => (line: string) => fold(line).forEach(write);
  const streams: Streams = { out: each(shown.out), err: shown.err };
  let running: Running | null = null;
  let runProgressMs = -Infinity;
  let runProgress = "";

  const end = (): void => {
    if (running !== null) clearTimeout(running.timer);
    running = null;
  };
  const begin = (step: string, title: string): void => {
    end();
    const printStart = (): void => {
      if (running === null) return;
      running.printedMs = now();
      streams.out(`${step}: ${running.summary} ...`);
    };
    const timer = setTimeout(printStart, LONG_STEP_MS).unref();
    running = { step, summary: title, printedMs: null, printed: "", timer };
  };
  const printProgress = (text: string): void => {
    if (running?.printedMs == null || text === "" || text === running.printed) return;
    const elapsedMs = now() - running.printedMs;
    if (elapsedMs < STEP_PROGRESS_EVERY_MS) return;
    running.printedMs = now();
    running.printed = text;
    streams.out(`${running.step}: ${text}`);
  };
  const waits = new Map<string, Wait>();
  const printWait = (step: string, text: string): void => {
    const wait = waits.get(step) ?? { sinceMs: now(), printedMs: null, printed: "" };
    const { sinceMs, printedMs, printed } = wait;
    const isDue =
      printedMs === null ? now() - sinceMs >= LONG_STEP_MS : now() - printedMs >= STEP_PROGRESS_EVERY_MS;
    const isNew = isDue && text !== "" && text !== printed;
    waits.set(step, isNew ? { sinceMs, printedMs: now(), printed: text } : wait);
    if (isNew) streams.out(`${step}: ${text}`);
  };
  const listen = (event: RunEvent): void => {
    switch (event.type) {
      case "warning":
        for (const line of hang("Warning: ", oneLine(event.text))) streams.err(line);
        break;
      case "planned":
        for (const line of planLines(event.items)) streams.out(line);
        break;
      case "step-started":
        begin(event.step, event.title);
        break;
      case "change-started":
        if (running !== null) running.summary = oneLine(event.summary);
        break;
      case "progress":
        if (event.waits === true) printWait(event.step, oneLine(event.line));
        else printProgress(oneLine(event.line));
        break;
      case "step-done":
        if (event.changed) streams.out(`${event.step}: done in ${duration(event.durationMs)}`);
        end();
        waits.delete(event.step);
        break;
      case "step-failed":
        streams.out(`${event.step}: failed`);
        end();
        break;
      case "change-done":
        break;
    }
  };
  return {
    listen,
    table,
    wrap: (text) => wrap(text),
    note: streams.out,
    progress: (line, leftMs) => {
      if (line === runProgress || now() - runProgressMs < RUN_PROGRESS_EVERY_MS) return;
      runProgressMs = now();
      runProgress = line;
      streams.out(progressLine(line, leftMs));
    },
    result: ({ lines }) => {
      // A name with a line break must not look like a line of the program's own.
      for (const line of lines) for (const part of fold(visible(line, { oneLine: true }))) given.out(part);
    },
    error: (error, exitCode) => {
      for (const line of errorLines(error, exitCode)) streams.err(line);
    },
    close: () => {
      end();
      return Promise.resolve();
    },
  };
}
