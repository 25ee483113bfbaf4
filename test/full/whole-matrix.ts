import { describe, expect, test } from "vitest";
import { type CrashMatrix, inLanes, prepareMatrix } from "../support/crash-matrix.ts";
import { skipped } from "../support/master-box.ts";
import { isOver, LANES } from "./limits.ts";
import { addResult, EVERY_POINT, inSeedOrder, passedOf, resultsFile, SEED, wordsOf } from "./results.ts";

const LONGEST_MS = 24 * 3_600_000;

/** Runs every point of a matrix that has not passed yet on this source, and records each result. */
export function wholeMatrix(matrix: CrashMatrix): void {
  const { name } = matrix;
  describe.skipIf(skipped !== undefined)(name, () => {
    test(EVERY_POINT, { timeout: LONGEST_MS }, async (context) => {
      const file = resultsFile();
      const passed = passedOf(file, name);
      const { effects, points, run, destroy } = await prepareMatrix(matrix);
      addResult(file, { matrix: name, effects: effects.length, points: points.length });
      const left = inSeedOrder(points, SEED).filter((point) => !passed.has(point.name));
      console.log(`${name}: ${effects.length} effects, ${points.length} points, ${left.length} to run`);
      const failed: string[] = [];
      let done = 0;
      const runOne = async (point: (typeof points)[number]): Promise<void> => {
        const start = performance.now();
        const end = (hasPassed: boolean, detail: string): void => {
          const seconds = Math.round((performance.now() - start) / 1000);
          addResult(file, { matrix: name, name: point.name, passed: hasPassed, seconds, detail });
          done += 1;
          const why = hasPassed ? "" : `: ${detail}`;
          console.log(
            `${done}/${left.length} ${hasPassed ? "ok" : "FAILED"} ${seconds} s ${point.name}${why}`,
          );
        };
        try {
          end(true, await run(point));
        } catch (thrown) {
          const words = wordsOf(thrown);
          failed.push(`${point.name}: ${words}`);
          end(false, words);
        }
      };
      try {
        await inLanes(left, LANES, runOne, isOver);
      } finally {
        await destroy();
      }
      expect(failed).toEqual([]);
      if (done < left.length) context.skip(`stopped: ${left.length - done} points are left`);
    });
  });
}
