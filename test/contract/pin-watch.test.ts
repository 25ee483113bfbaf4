import { expect, onTestFinished, test } from "vitest";
import { type Cluster, openCluster } from "../../src/cluster/client.ts";
import { sendForgotten, watchPins } from "../../src/pinning/watch.ts";
import { cidOf } from "../support/cids.ts";
import { apiPin, type ClusterDouble, type ListFault, startClusterDouble } from "../support/cluster-double.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { accept, standingOf, workLeft, workOn } from "../support/pin-requests.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

const SLOW = { timeout: 20_000 };
const CID = cidOf("watched");
const NEVER = new AbortController().signal;

async function start(peers: number): Promise<{ readonly double: ClusterDouble; readonly cluster: Cluster }> {
  const double = await startClusterDouble({ peers });
  const cluster = openCluster({ endpoint: double.url });
  onTestFinished(async () => {
    cluster.close();
    await double.stop();
  });
  double.pins.set(CID, apiPin({ cid: CID }) as { readonly cid: string });
  return { double, cluster };
}

function report(double: ClusterDouble, statuses: readonly string[]): void {
  statuses.forEach((status, index) => double.peers[index]?.statuses.set(CID, status));
}

/** A request that is pinned, with nothing left to do. */
async function pinned(target: PostgresTarget): Promise<string> {
  const id = await accept(poolOf(target), { account: "u", cid: CID });
  await sql(target, "UPDATE pins SET status = 'pinned', size = 7");
  await sql(target, "DELETE FROM pin_work");
  return id;
}

/** What is left, once all is due that the worker does not work on just now: it would put that off again. */
async function leftWhenDue(target: PostgresTarget): Promise<number> {
  await sql(target, "UPDATE pin_work SET due_at = now() WHERE claim IS NULL");
  return workLeft(target);
}

describeOnPostgres(
  "the pass over pins that are done",
  (postgres) => {
    test("content that no peer has any more leaves pinned, is recovered, and is pinned again (H13)", async () => {
      const target = await postgres.createDatabase();
      const { double, cluster } = await start(2);
      const id = await pinned(target);
      report(double, ["unexpectedly_unpinned", "unexpectedly_unpinned"]);
      await watchPins(poolOf(target), cluster, NEVER);
      expect(await standingOf(target, id)).toBe("pinning, look");
      expect(await sql(target, "SELECT isfinite(deadline_at) AS fails FROM pin_work")).toEqual([
        { fails: false },
      ]);
      const asked = { dagSize: async () => expect.unreachable() };
      workOn(target, double, asked);
      await expect.poll(() => double.requests, SLOW).toContain(`POST /pins/${CID}/recover`);
      await expect.poll(() => leftWhenDue(target), SLOW).toBe(0);
      expect(await standingOf(target, id)).toBe("pinned");
    });

    test("the worker makes such passes by itself, and survives a list that breaks off", async () => {
      const target = await postgres.createDatabase();
      const { double } = await start(1);
      const id = await pinned(target);
      report(double, ["unexpectedly_unpinned"]);
      double.faults.status = { kind: "cut", afterLines: 1, how: "reset" };
      double.keepsStatuses = true;
      const worker = workOn(target, double, { settings: { watchEveryMs: 100 } });
      await expect.poll(() => worker.lines.length, SLOW).toBe(1);
      expect(await standingOf(target, id)).toBe("pinned");
      delete double.faults.status;
      await expect.poll(() => standingOf(target, id), SLOW).toBe("pinning, look");
    });

    test.each([
      [["pinned", "unexpectedly_unpinned"]],
      [["pinned", "pin_error"]],
      [["cluster_error", "unexpectedly_unpinned"]],
      [["remote", "remote"]],
      [["sharded", "undefined"]],
      [["unpinned", "unpinned"]],
      [["teleporting", "teleporting"]],
    ])("changes nothing for %j", async (statuses) => {
      const target = await postgres.createDatabase();
      const { double, cluster } = await start(2);
      const id = await pinned(target);
      report(double, statuses);
      await watchPins(poolOf(target), cluster, NEVER);
      expect(await standingOf(target, id)).toBe("pinned");
    });

    test("a pin in direct mode, which the list reports wrongly, stays pinned", async () => {
      const target = await postgres.createDatabase();
      const { double, cluster } = await start(1);
      const id = await pinned(target);
      double.misreported.add(CID);
      await watchPins(poolOf(target), cluster, NEVER);
      expect(await standingOf(target, id)).toBe("pinned");
      expect(double.requests).toContain(`GET /pins/${CID}`);
    });

    test.each<ListFault>([
      { kind: "cut", afterLines: 1, how: "fin" },
      { kind: "late-error", message: "no" },
      { kind: "no-trailer" },
      { kind: "first-error", message: "no" },
      { kind: "garbage", line: "{" },
      { kind: "stops-listening" },
    ])("a list that is not complete changes nothing: $kind", async (fault) => {
      const target = await postgres.createDatabase();
      const { double, cluster } = await start(1);
      const id = await pinned(target);
      report(double, ["unexpectedly_unpinned"]);
      double.faults.status = fault;
      await expect(watchPins(poolOf(target), cluster, NEVER)).rejects.toThrow();
      expect(await standingOf(target, id)).toBe("pinned");
    });

    test("a pinned content that the cluster forgot is sent again, and stays pinned", async () => {
      const target = await postgres.createDatabase();
      const { double, cluster } = await start(1);
      const id = await pinned(target);
      await pinned(target);
      expect(await sendForgotten(poolOf(target), cluster, NEVER)).toBe(0);
      double.pins.clear();
      double.faults.allocations = { kind: "first-error", message: "no" };
      await expect(sendForgotten(poolOf(target), cluster, NEVER)).rejects.toThrow();
      expect(await workLeft(target)).toBe(0);
      delete double.faults.allocations;
      expect(await sendForgotten(poolOf(target), cluster, NEVER)).toBe(1);
      expect(await standingOf(target, id)).toBe("pinned, send");
      double.keepsStatuses = true;
      report(double, ["pinning"]);
      workOn(target, double);
      await expect.poll(() => double.pins.has(CID), SLOW).toBe(true);
      report(double, ["pinned"]);
      await expect.poll(() => leftWhenDue(target), SLOW).toBe(0);
      expect(await standingOf(target, id)).toBe("pinned");
    });

    test("needs no more memory for more pins", async () => {
      const target = await postgres.createDatabase();
      const lineOf = (index: number): string =>
        `${JSON.stringify({ cid: cidOf(`m${index % 500}`), peer_map: { a: { status: "unexpectedly_unpinned" } } })}\n`;
      const block = Buffer.from(Array.from({ length: 500 }, (_, index) => lineOf(index)).join(""));
      const started = process.memoryUsage().heapUsed;
      let most = 0;
      const cluster: Pick<Cluster, "list" | "status"> = {
        async list(_name, takeLines) {
          for (let blocks = 0; blocks < 1_000; blocks++) {
            await takeLines(block);
            most = Math.max(most, process.memoryUsage().heapUsed - started);
          }
          return { noContent: false, bytes: 0 };
        },
        status: () => Promise.reject(new Error("no request is pinned")),
      };
      await watchPins(poolOf(target), cluster, NEVER);
      expect(most).toBeLessThan(150 * 1024 ** 2);
    });
  },
  { template: migrate },
);
