import type { RunEvent } from "../engine/events.ts";
import type { Reporter } from "./reporter.ts";
import { duration, errorLines, planLines, table } from "./text.ts";

/** Where lines go. */
export interface Streams {
  readonly out: (line: string) => void;
  readonly err: (line: string) => void;
}

const PROGRESS_EVERY_MS = 2000;

/** Plain lines for logs, cron and CI; progress of one change at most every two seconds. */
export function createLines(streams: Streams, now: () => number): Reporter {
  let lastProgress = 0;
  const show = (event: RunEvent): void => {
    switch (event.type) {
      case "warning":
        streams.err(`warning: ${event.text}`);
        break;
      case "planned":
        for (const line of planLines(event.items)) streams.out(line);
        break;
      case "change-started":
        lastProgress = now();
        streams.out(`${event.step}: ${event.summary} ...`);
        break;
      case "progress":
        if (now() - lastProgress < PROGRESS_EVERY_MS) break;
        lastProgress = now();
        streams.out(`${event.step}:   ${event.line}`);
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
    result: ({ lines }) => {
      for (const line of lines) streams.out(line);
    },
    error: (error, exitCode) => {
      for (const line of errorLines(error, exitCode)) streams.err(line);
    },
    close: () => Promise.resolve(),
  };
}
