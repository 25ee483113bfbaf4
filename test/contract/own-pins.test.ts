import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openCluster } from "../../src/cluster/client.ts";
import { checkOwnPins, recoverOwnPins } from "../../src/federation/own-pins.ts";
import { eventually, findPrograms, type RealCluster, startRealCluster } from "../support/cluster-real.ts";

const found = await findPrograms();
const missing = typeof found === "string" ? found : null;
if (missing !== null && process.env["CI"] !== undefined) throw new Error(missing);

describe.skipIf(missing !== null)("a pin that was removed and added again, on a new node", () => {
  let cluster: RealCluster;

  beforeAll(async () => {
    if (typeof found === "string") throw new Error(found);
    const environment = { CLUSTER_CRDT_REBROADCASTINTERVAL: "1s" };
    cluster = await startRealCluster(found, { peers: 2, environment });
  });
  afterAll(() => cluster?.stop());

  it("is missing there, and is there once ipfs-cluster was asked to pin it again", async () => {
    const [master, follower] = cluster.peers;
    if (master === undefined || follower === undefined) throw new Error("no peers");
    const at = async (method: "POST" | "DELETE", cid: string) => {
      const query = "replication-min=-1&replication-max=-1";
      expect((await fetch(`${master.apiUrl}/pins/${cid}?${query}`, { method })).status).toBe(200);
    };
    const own = openCluster({ endpoint: follower.apiUrl });
    let total = 0;
    /** Pins three contents and one of them twice while the follower is away. True if the older removal was the last to arrive. */
    async function provoke(): Promise<boolean> {
      await follower?.stopCluster("SIGTERM");
      const cids: string[] = [];
      for (let pin = 0; pin < 3; pin += 1)
        cids.push((await master?.ipfs(["add", "-Q", "--pin=false"], `pin ${pin} ${Date.now()}`)) ?? "");
      for (const cid of cids) await at("POST", cid);
      const [twice = ""] = cids;
      await at("DELETE", twice);
      await at("POST", twice);
      await follower?.startCluster();
      total += 3;
      return await eventually("the pins arrive", async () => {
        const { pinned = 0, unexpectedly_unpinned: unpinned = 0 } = await checkOwnPins(own);
        return pinned + unpinned === total ? { isProvoked: unpinned === 1 } : null;
      }).then(({ isProvoked }) => isProvoked);
    }

    try {
      // The order of arrival is ipfs-cluster's own: usually the first time is enough.
      let isProvoked = false;
      for (let time = 0; time < 5 && !isProvoked; time += 1) isProvoked = await provoke();
      expect(isProvoked).toBe(true);
      const there = new Set<string>();
      await eventually("nothing is missing", async () => (await recoverOwnPins(own, there)) === 0);
      await eventually("all are pinned", async () => (await checkOwnPins(own))["pinned"] === total);
    } finally {
      own.close();
    }
  }, 300_000);
});
