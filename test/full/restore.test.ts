import { afterAll } from "vitest";
import { type CrashMatrix, type Prepared, prepareMatrix } from "../support/crash-matrix.ts";
import { RESTORE_MATRIX, ROLLBACK_MATRIX } from "../support/restore-matrices.ts";
import { type Case, matrix } from "./cases.ts";
import { inSeedOrder, SEED } from "./results.ts";

// A sample of their points, which the seed chooses: all of them would take another two hours.
const POINTS = 20;

const prepared: Promise<Prepared>[] = [];
afterAll(async () => {
  const ended = await Promise.allSettled(prepared);
  for (const one of ended) if (one.status === "fulfilled") await one.value.destroy();
});

for (const whole of [RESTORE_MATRIX, ROLLBACK_MATRIX])
  matrix(`${whole.name}, a sample of its points`, sampleOf(whole));

function sampleOf(whole: CrashMatrix): readonly Case[] {
  let ready: Promise<Prepared> | null = null;
  const prepare = (): Promise<Prepared> => {
    if (ready === null) prepared.push((ready = prepareMatrix(whole)));
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
