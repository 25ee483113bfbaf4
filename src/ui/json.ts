import type { Streams } from "./lines.ts";
import type { Reporter } from "./reporter.ts";
import { visibleJson } from "../units.ts";
import { table, wrap } from "./text.ts";

/**
 * Prints one JSON object on stdout for a result, or one on stderr for an error, and nothing else. The object
 * contains all warnings so far as `warnings`.
 */
export function createJson(streams: Streams): Reporter {
  const warnings: string[] = [];
  return {
    listen: (event) => {
      if (event.type === "warning") warnings.push(event.text);
    },
    close: () => Promise.resolve(),
    table,
    wrap: (text) => wrap(text),
    note: () => undefined,
    progress: () => undefined,
    result: ({ data }) => streams.out(visibleJson({ ...data, warnings })),
    error: ({ exit, what, why, remedy, changed, problems }, exitCode) =>
      streams.err(
        visibleJson({
          error: {
            exit,
            exitCode,
            what,
            why: why ?? null,
            remedy: remedy ?? null,
            changed: changed ?? null,
            problems,
          },
          warnings,
        }),
      ),
  };
}
