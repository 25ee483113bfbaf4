import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Cluster, openCluster } from "../../../src/cluster/client.ts";
import { takeSnapshot } from "../../../src/pinset/snapshot/take.ts";
import { sweep, type SweepResult } from "../../../src/pinset/sweep/sweep.ts";
import { openWorkspace } from "../../../src/pinset/workspace.ts";
import {
  eventually,
  findPrograms,
  type RealCluster,
  type RealPeer,
  startRealCluster,
} from "../../support/cluster-real.ts";
import { operationDeps, type OperationDeps } from "../../support/operation-deps.ts";

const programs = await findPrograms();
if (typeof programs === "string" && process.env["CI"] !== undefined) throw new Error(programs);
if (typeof programs === "string") console.warn(`skipped: take and sweep on real peers: ${programs}`);

describe.skipIf(typeof programs === "string")("on a real master with two followers", () => {
  let real: RealCluster;
  let cluster: Cluster;
  let deps: OperationDeps;
  const cids: string[] = [];

  const peer = (index: number): RealPeer => real.peers[index] as RealPeer;
  const pin = async (path: string): Promise<void> => {
    const response = await fetch(`${peer(0).apiUrl}/pins/${path}`, { method: "POST" });
    expect(response.status, await response.text()).toBe(200);
  };
  let laterMs = 0;
  const run = (): Promise<SweepResult> => {
    const { files, channels, report, base } = deps;
    const clock = {
      now: () => new Date(Date.now() + laterMs),
      monotonicMs: () => performance.now(),
      wait: () => Promise.resolve(),
    };
    const fixed = {
      nodes: {
        path: `${base}/known-nodes.json`,
        otherMasters: [],
        readRegistered: () =>
          Promise.resolve([1, 2].map((index) => ({ id: peer(index).id, name: `n${index}` }))),
      },
      readSearched: () => Promise.resolve({ cids: new Set<string>(), isCut: false }),
      forget: [],
      floor: 2,
      strict: true,
      workspace: openWorkspace(base),
    };
    return sweep({ cluster, clock, files, channels, report, heartbeat: deps.heartbeat("sweep"), ...fixed });
  };

  beforeAll(async () => {
    if (typeof programs === "string") return;
    deps = operationDeps();
    real = await startRealCluster(programs, {
      peers: 3,
      environment: { CLUSTER_CRDT_REBROADCASTINTERVAL: "2s" },
    });
    cluster = openCluster({ endpoint: peer(0).apiUrl });
    for (const text of ["everywhere", "two of three", "direct"]) {
      cids.push(await peer(0).ipfs(["add", "-q", "--pin=false", "--cid-version=1"], text));
    }
    await pin(`${cids[0]}?name=everywhere`);
    await pin(
      `${cids[1]}?replication-min=2&replication-max=2&user-allocations=${peer(1).id},${peer(2).id}&meta-owner=me`,
    );
    await pin(`ipfs/${cids[2]}?mode=direct&replication-min=2&replication-max=2`);
  });
  afterAll(async () => {
    cluster?.close();
    await real?.stop();
    deps?.clear();
  });

  test("a sweep reports health once the cluster has settled, also of the direct pin that the list reports wrongly", async () => {
    const result = await eventually("healthy", async () => {
      const seen = await run();
      return seen.exit === "ok" && seen;
    });
    expect(result.counts).toMatchObject({ healthy: 3 });
    expect(result.rechecked).toBe(1);
    expect(result.nodes.map((node) => node.state)).toEqual(["up", "up", "up"]);
  });

  test("a snapshot has the three pins with all their fields", async () => {
    const { store, key, clock, channels, report, workspace, memory } = deps;
    const fixed = {
      accept: false,
      clusterName: "lab",
      clusterId: null,
      keep: 28,
      dropShare: 0.1,
      toolVersion: "0.1.0",
    };
    const result = await takeSnapshot({
      cluster,
      store,
      key,
      clock,
      channels,
      report,
      heartbeat: deps.heartbeat("take"),
      workspace,
      memory,
      ...fixed,
    });
    expect(result).toMatchObject({ exit: "ok", count: 3 });
  });

  test("a lost copy is found, gets an alert, and is restored", async () => {
    // Long after the nodes had fetched the pinset.
    laterMs = 16 * 60_000;
    await peer(1).ipfs(["pin", "rm", cids[1] as string]);
    const result = await run();
    expect(result).toMatchObject({ exit: "pending", recovered: 1, alerts: 1 });
    expect(result.worst).toEqual([
      expect.objectContaining({
        cid: cids[1],
        state: "failed",
        pinned: 1,
        min: 2,
        failedPeers: [peer(1).id],
        confirmed: true,
      }),
    ]);
    await eventually("mended", async () => (await run()).exit === "ok");
  });

  test("a follower that stops is reported as missing, and counts again when it is back", async () => {
    await peer(2).stopCluster("SIGKILL");
    const alertsBefore = (await deps.alertLines()).length;
    const result = await eventually("missed", async () => {
      const seen = await run();
      return seen.nodes.some((node) => node.state === "absent") && seen;
    });
    expect(result.exit).toBe("pending");
    expect(result.worst).toContainEqual(
      expect.objectContaining({ cid: cids[0], pinned: 2, min: 3, unknownPeers: [peer(2).id] }),
    );
    expect((await deps.alertLines()).length).toBeGreaterThan(alertsBefore);
    await peer(2).startCluster();
    await eventually("back", async () => (await run()).exit === "ok");
  });

  test("with the master's kubo down, missing answers do not count as healthy", async () => {
    await peer(0).stopKubo();
    const seen = await run().then(
      (result) => result.exit,
      (thrown: { exit: string }) => thrown.exit,
    );
    expect(["pending", "unavailable"]).toContain(seen);
  });
});
