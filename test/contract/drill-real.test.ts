import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { snapshotDrill } from "../../src/drills/snapshot-drill.ts";
import { createSweepDrill, sweepDrill } from "../../src/drills/sweep-drill.ts";
import { sweep } from "../../src/pinset/sweep/sweep.ts";
import { eventually, findPrograms, type RealCluster, startRealCluster } from "../support/cluster-real.ts";
import { type DrillMaster, startDrillMaster } from "../support/pinset-drills.ts";

const programs = await findPrograms();
if (typeof programs === "string" && process.env["CI"] !== undefined) throw new Error(programs);
if (typeof programs === "string") console.warn(`skipped: drills on real peers: ${programs}`);

describe.skipIf(typeof programs === "string")("on a real master with two followers", () => {
  let real: RealCluster;
  let box: DrillMaster;

  /** The pins of a drill, its directories, and the blocks in the master's kubo. */
  const left = async () => {
    const [master] = real.peers;
    const listed = await (await fetch(`${master?.apiUrl}/allocations`)).text();
    return {
      pins: listed.split("\n").filter((line) => line.includes("fula-drill-")),
      blocks: (await master?.ipfs(["refs", "local"]))?.split("\n").toSorted(),
      directories: box.left(),
    };
  };

  beforeAll(async () => {
    if (typeof programs === "string") return;
    real = await startRealCluster(programs, {
      peers: 3,
      environment: { CLUSTER_CRDT_REBROADCASTINTERVAL: "2s" },
    });
    const [master, ...followers] = real.peers;
    box = startDrillMaster(
      { clusterUrl: master?.apiUrl ?? "", kuboUrl: master?.kuboUrl ?? "" },
      { isQuick: false },
    );
    box.registered = followers.map(({ id }, index) => ({ owner: id, name: `n${index}`, announced_at: null }));
    const cid = await master?.ipfs(["add", "-q", "--pin=false", "--cid-version=1"], "everywhere");
    await fetch(`${master?.apiUrl}/pins/${cid}`, { method: "POST" });
    await eventually("stored", async () => {
      const text = await (await fetch(`${master?.apiUrl}/pins/${cid}`)).text();
      return text.match(/"pinned"/g)?.length === 3;
    });
  });
  afterAll(async () => {
    await real?.stop();
    box?.clear();
  });

  test.each([
    ["D6", snapshotDrill],
    ["D7", sweepDrill],
  ] as const)(
    "%s passes, and leaves neither pin nor block nor directory",
    async (_, drill) => {
      const before = await left();
      const outcome = drill === snapshotDrill ? await box.run(snapshotDrill) : await box.run(sweepDrill);
      expect(outcome).toMatchObject({ state: "passed" });
      expect(outcome.cleaned).toEqual([expect.stringMatching(/: its pin, its block, its directory$/)]);
      expect(await left()).toEqual(before);
      // It may wait for a minute, near a job of cron.
    },
    120_000,
  );

  test("D7 fails with a sweep that asks for no copies", async () => {
    const outcome = await box.run(createSweepDrill((options) => sweep({ ...options, floor: 0 })));
    expect(outcome).toMatchObject({ state: "failed" });
    expect((await left()).pins).toEqual([]);
  });

  test("kubo keeps no pin of a drill that was killed before ipfs-cluster had unpinned it", async () => {
    const before = await left();
    const drill = createSweepDrill(() => Promise.reject(new Error("killed")));
    const context = { master: box.master, report: () => {}, stop: new AbortController().signal };
    await expect(drill.run(box.deps, context)).rejects.toThrow("killed");
    await drill.cleanUp(box.deps, context);
    expect(await left()).toEqual(before);
  });
});
