import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type CrashMatrix, inLanes, prepareMatrix } from "../support/crash-matrix.ts";
import { skipped } from "../support/master-box.ts";
import { isOver, LANES } from "./limits.ts";
import { failedOf } from "./report-text.ts";
import {
  addResult,
  EVERY_POINT,
  inSeedOrder,
  ONLY_FAILED,
  passedOf,
  PAGE,
  resultsFile,
  SEED,
  withoutNumber,
  wordsOf,
} from "./results.ts";

const LONGEST_MS = 24 * 3_600_000;

/** Runs every point of a matrix that has not passed yet on this source, or that has failed before, and records each result. */
export function wholeMatrix(matrix: CrashMatrix): void {
  const { name } = matrix;
  const before = ONLY_FAILED ? failedOf(readFileSync(PAGE, "utf8"), name).map(withoutNumber) : [];
  const isLeft = skipped === undefined && (!ONLY_FAILED || before.length > 0);
  describe.skipIf(!isLeft)(name, () => {
    test(EVERY_POINT, { timeout: LONGEST_MS }, async (context) => {
      const file = resultsFile();
      const passed = passedOf(file, name);
      const { effects, points, run, destroy } = await prepareMatrix(matrix);
      const mark = ONLY_FAILED ? { again: true as const } : {};
      addResult(file, { matrix: name, effects: effects.length, points: points.length, ...mark });
      const wanted = ONLY_FAILED ? points.filter((one) => before.includes(withoutNumber(one.name))) : points;
      const left = inSeedOrder(wanted, SEED).filter((point) => !passed.has(point.name));
      console.log(`${name}: ${effects.length} effects, ${points.length} points, ${left.length} to run`);
      const known = points.map((point) => withoutNumber(point.name));
      const failed = before
        .filter((one) => !known.includes(one))
        .map((one) => `${one}: no such point any more`);
      let done = 0;
      const runOne = async (point: (typeof points)[number]): Promise<void> => {
        const start = performance.now();
        const end = (hasPassed: boolean, detail: string): void => {
          const seconds = Math.round((performance.now() - start) / 1000);
          const result = { matrix: name, name: point.name, passed: hasPassed, seconds, detail };
          addResult(file, { ...result, ...mark });
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
