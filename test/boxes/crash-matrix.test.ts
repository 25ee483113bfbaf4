import { randomInt } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { inSeedOrder } from "../full/results.ts";
import { FIRST_JOIN_MATRIX } from "../support/crash-matrices.ts";
import { inLanes, type Prepared, prepareMatrix } from "../support/crash-matrix.ts";
import { skipped } from "../support/master-box.ts";

const POINTS = 8;
const LANES = 3;
const SEED = Number(process.env["FULA_NODE_TEST_SEED"] ?? randomInt(1_000_000));

// All points of all matrices: npm run test:full.
describe.skipIf(skipped !== undefined)("a first join that is killed at a point", () => {
  let prepared: Prepared;
  beforeAll(async () => {
    prepared = await prepareMatrix(FIRST_JOIN_MATRIX);
  });
  afterAll(() => prepared?.destroy());

  test(`converges to the state of a clean run: ${POINTS} points, chosen by the seed ${SEED} (FULA_NODE_TEST_SEED)`, async () => {
    const chosen = inSeedOrder(prepared.points, SEED).slice(0, POINTS);
    const failed: string[] = [];
    await inLanes(chosen, LANES, async (point) => {
      await prepared.run(point).catch((thrown: unknown) => failed.push(`${point.name}: ${String(thrown)}`));
    });
    console.log(`seed ${SEED}:\n${chosen.map(({ name }) => name).join("\n")}`);
    expect(failed).toEqual([]);
  });
});
