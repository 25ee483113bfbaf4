import { afterAll } from "vitest";
import { type CrashMatrix, type Prepared, prepareMatrix } from "../support/crash-matrix.ts";
import { RESTORE_MATRIX, ROLLBACK_MATRIX } from "../support/restore-matrices.ts";
import { type Case, matrix } from "./cases.ts";
import { inSeedOrder, SEED } from "./results.ts";

// A sample of their points, which the seed chooses: all of them would take another two hours.
const POINTS = 20;

const prepared: Promise<Prepared>[] = [];
afterAll(async () => {
  for (const one of prepared) await (await one).destroy();
});

for (const of of [RESTORE_MATRIX, ROLLBACK_MATRIX])
  matrix(`${of.name}, a sample of its points`, sampleOf(of));

function sampleOf(of: CrashMatrix): readonly Case[] {
  let ready: Promise<Prepared> | null = null;
  const prepare = (): Promise<Prepared> => {
    if (ready === null) prepared.push((ready = prepareMatrix(of)));
    return ready;
  };
  return Array.from({ length: POINTS }, (_, index) => ({
    name: `point ${index + 1}`,
    run: async () => {
      const { points, run } = await prepare();
      const point = inSeedOrder(points, SEED)[index];
      if (point === undefined) throw new Error(`there are ${points.length} points only`);
      return `${point.name}: ${await run(point)}`;
    },
  }));
}
