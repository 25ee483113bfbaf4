import { randomInt } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { inSeedOrder } from "../full/results.ts";
import { FIRST_JOIN_MATRIX } from "../support/crash-matrices.ts";
import { inLanes, type Prepared, prepareMatrix } from "../support/crash-matrix.ts";
import type { Point } from "../support/effects.ts";
import { skipped } from "../support/master-box.ts";

/** No more than these points, and none that starts after this time: the file ends within 5 minutes on two processors. */
const POINTS = 8;
const LAST_START_MS = 180_000;
const LANES = 2;
const SEED = Number(process.env["FULA_NODE_TEST_SEED"] ?? randomInt(1_000_000));

/** A point at which the box is changed after its repair, as a faulty repair would. */
const SPOILED = "spoiled";
const SPOIL = `cd /opt/fula-master && touch .x.fula-node-tmp.1.1 && chmod 600 docker-compose.yml &&
  sed -i 's/^SYSTEM_KEY=.*/&_/' .env && docker volume create left`;

// All points of all matrices: npm run test:full.
describe.skipIf(skipped !== undefined)("a first join that is killed at a point", () => {
  const began = performance.now();
  let prepared: Prepared;
  beforeAll(async () => {
    prepared = await prepareMatrix({
      ...FIRST_JOIN_MATRIX,
      settle: async (box, point) => {
        if (point?.name === SPOILED) await box.run(SPOIL);
      },
    });
  });
  afterAll(() => prepared?.destroy());

  test.concurrent(`converges to the state of a clean run: points chosen by the seed ${SEED} (FULA_NODE_TEST_SEED)`, async () => {
    const { effects, points } = prepared;
    const run: string[] = [];
    const failed: string[] = [];
    const isOver = (): boolean => run.length >= LANES && performance.now() - began > LAST_START_MS;
    const runOne = async (point: Point): Promise<void> => {
      run.push(point.name);
      await prepared.run(point).catch((thrown: unknown) => failed.push(`${point.name}: ${String(thrown)}`));
    };
    await inLanes(inSeedOrder(points, SEED).slice(0, POINTS), LANES, runOne, isOver);
    const minutes = ((performance.now() - began) / 60_000).toFixed(1);
    const sizes = `${effects.length} effects, ${points.length} points, ${run.length} run`;
    console.log(
      `seed ${SEED}: ${sizes}, ${run.length - failed.length} converged, ${minutes} minutes\n${run.join("\n")}`,
    );
    expect(failed).toEqual([]);
  });

  test.concurrent("what a faulty repair leaves behind, changes or loses is found", async () => {
    const point = prepared.points.find(({ key }) => key.startsWith("request POST docker/build"));
    const found = await prepared
      .run({ ...(point ?? expect.fail("no such point")), name: SPOILED })
      .catch(String);
    expect(found).toContain("changed: SYSTEM_KEY");
    expect(found).toContain("changed: file /opt/fula-master/docker-compose.yml: file 644");
    expect(found).toContain("more: file /opt/fula-master/.x.fula-node-tmp.1.1");
    expect(found).toContain("more: volume left");
  });

  test.concurrent("a run that passes by its point is no kill", async () => {
    const nowhere = { name: "", when: "before", key: "mkdir /nowhere #1" } as const;
    await expect(prepared.run(nowhere)).rejects.toThrow(
      /the kill did not land: the run passed by this point/,
    );
  });
});
