import type { RunEvent } from "../engine/events.ts";
import type { Reporter } from "./reporter.ts";
import { duration } from "../units.ts";
import { errorLines, oneLine, planLines, table } from "./text.ts";

/** Where lines go. */
export interface Streams {
  readonly out: (line: string) => void;
  readonly err: (line: string) => void;
}

const PROGRESS_EVERY_MS = 2000;
const LONG_PROGRESS_EVERY_MS = 10_000;

/**
 * Plain lines for logs, cron and CI: one when a change begins, one when it is done, and its progress at
 * most every two seconds. `now` is in milliseconds.
 */
export function createLines(streams: Streams, now: () => number): Reporter {
  let lastProgress = 0;
  let lastLongProgress = 0;
  const isSoon = (): boolean => {
    const elapsed = now() - lastProgress;
    return elapsed >= 0 && elapsed < PROGRESS_EVERY_MS;
  };
  const show = (event: RunEvent): void => {
    switch (event.type) {
      case "warning":
        streams.err(`Warning: ${oneLine(event.text)}`);
        break;
      case "planned":
        for (const line of planLines(event.items)) streams.out(line);
        break;
      case "change-started":
        lastProgress = now();
        streams.out(`${event.step}: ${event.summary} ...`);
        break;
      case "progress":
        if (oneLine(event.line) === "" || isSoon()) break;
        lastProgress = now();
        streams.out(`${event.step}:   ${oneLine(event.line)}`);
        break;
      case "change-done":
        streams.out(`${event.step}: done in ${duration(event.durationMs)}`);
        break;
      case "step-failed":
        streams.out(`${event.step}: failed`);
        break;
      case "step-started":
      case "step-done":
        break;
    }
  };
  return {
    listen: show,
    table,
    note: streams.out,
    progress: (line) => {
      if (now() - lastLongProgress < LONG_PROGRESS_EVERY_MS) return;
      lastLongProgress = now();
      streams.out(line);
    },
    result: ({ lines }) => {
      for (const line of lines) streams.out(line);
    },
    error: (error, exitCode) => {
      for (const line of errorLines(error, exitCode)) streams.err(line);
    },
    close: () => Promise.resolve(),
  };
}
