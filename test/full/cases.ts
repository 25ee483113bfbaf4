import { describe, test } from "vitest";
import { skipped } from "../support/master-box.ts";
import { isOver } from "./limits.ts";
import { addResult, passedOf, randomOf, resultsFile, wordsOf } from "./results.ts";

/** One case: its name, and what it does. It returns what it found. */
export interface Case {
  readonly name: string;
  readonly run: (random: () => number) => Promise<string>;
}

/**
 * Runs the cases of a matrix that have not passed yet on this source with this seed, some at the same time, and records each result.
 * `unless` is why they cannot run here.
 */
export function matrix(name: string, cases: readonly Case[], unless: string | undefined = skipped): void {
  const file = resultsFile();
  const passed = passedOf(file, name);
  describe.skipIf(unless !== undefined)(name, () => {
    for (const { name: one, run } of cases) {
      const start = passed.has(one) ? test.skip : test.concurrent;
      start(one, async (context) => {
        if (isOver()) context.skip("stopped: this case is left");
        const began = performance.now();
        const end = (hasPassed: boolean, detail: string): void => {
          const seconds = Math.round((performance.now() - began) / 1000);
          addResult(file, { matrix: name, name: one, passed: hasPassed, seconds, detail });
          // At once: a run that is cut off would not show it in its end.
          console.log(`${hasPassed ? "ok" : "FAILED"} ${seconds} s ${name}, ${one}: ${detail}`);
        };
        try {
          end(true, await run(randomOf(`${name} ${one}`)));
        } catch (thrown) {
          end(false, wordsOf(thrown));
          throw thrown;
        }
      });
    }
  });
}

/** The same case several times, each with its own random moments. */
export function times(count: number, name: string, run: Case["run"]): readonly Case[] {
  return Array.from({ length: count }, (_, index) => ({ name: `${name} ${index + 1}`, run }));
}
