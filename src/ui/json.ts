import type { Streams } from "./lines.ts";
import type { Reporter } from "./reporter.ts";
import { table } from "./text.ts";

/** One JSON object on stdout for a result, one on stderr for an error; nothing else. */
export function createJson(streams: Streams): Reporter {
  return {
    listen: () => undefined,
    close: () => Promise.resolve(),
    table,
    note: () => undefined,
    result: ({ data }) => streams.out(JSON.stringify(data)),
    error: ({ exit, what, why, remedy, changed, problems }, exitCode) =>
      streams.err(
        JSON.stringify({
          error: {
            exit,
            exitCode,
            what,
            why: why ?? null,
            remedy: remedy ?? null,
            changed: changed ?? null,
            problems,
          },
        }),
      ),
  };
}
