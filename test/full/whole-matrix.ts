import { describe, expect, test } from "vitest";
import { type CrashMatrix, inLanes, prepareMatrix } from "../support/crash-matrix.ts";
import { skipped } from "../support/master-box.ts";
import { addResult, inSeedOrder, passedOf, resultsFile, SEED } from "./results.ts";

/** How many points are run at once. */
const LANES = 3;
/** A run stops starting points after this time, and goes on where it stopped the next time. */
const MINUTES = Number(process.env["FULA_NODE_TEST_MINUTES"] || "Infinity");
const LONGEST_MS = 24 * 3_600_000;

const began = performance.now();
const isOver = (): boolean => performance.now() - began > MINUTES * 60_000;

/** Runs every point of a matrix that has not passed yet on this source, and records each result. */
export function wholeMatrix(matrix: CrashMatrix): void {
  const { name } = matrix;
  describe.skipIf(skipped !== undefined)(name, () => {
    test("converges from every point", { timeout: LONGEST_MS }, async (context) => {
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
          console.log(`${done}/${left.length} ${hasPassed ? "ok" : "FAILED"} ${seconds} s ${point.name}`);
        };
        try {
          end(true, await run(point));
        } catch (thrown) {
          const words = String(thrown).replaceAll(/\s+/g, " ");
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
