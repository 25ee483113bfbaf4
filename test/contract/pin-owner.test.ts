import { randomUUID } from "node:crypto";
import { CID } from "multiformats/cid";
import { expect, onTestFinished, test } from "vitest";
import { parseCid } from "../../src/pinning/content-id.ts";
import { replacePin } from "../../src/pinning/pin-store.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { cidOf } from "../support/cids.ts";
import { apiPin, type ClusterDouble, type DoublePin, startClusterDouble } from "../support/cluster-double.ts";
import { declarePartTests } from "../support/migration-parts.ts";
import { listen, migratorOf } from "../support/migrations.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { accept, remove, standingOf, workLeft, workOn } from "../support/pin-requests.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";

const SLOW = { timeout: 60_000 };
const V0 = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG";
const V1 = CID.parse(V0).toV1().toString();

/** An account's pin: its name is nobody's. */
const MARKED = {
  name: "",
  metadata: { "fula-node-database": expect.stringMatching(/^[0-9a-f-]{36}$/) as string },
};

function operatorsPin(cid: string, more: Readonly<Record<string, unknown>> = {}): DoublePin {
  return { cid, name: "the operator's", metadata: { team: "ops" }, ...more };
}

function callsOf({ requests }: ClusterDouble, method: "POST" | "DELETE"): readonly string[] {
  return requests.filter((request) => request.startsWith(`${method} /pins`));
}

async function isDone(target: PostgresTarget): Promise<void> {
  await expect.poll(() => workLeft(target), SLOW).toBe(0);
}

describeOnPostgres(
  "pins that no account made",
  (postgres) => {
    /** A cluster with a worker. */
    async function start() {
      const target = await postgres.createDatabase();
      const cluster = await startClusterDouble({ peers: 1 });
      onTestFinished(() => cluster.stop());
      const worker = workOn(target, cluster);
      return { target, cluster, worker, pool: poolOf(target) };
    }

    test("the operator's pin serves a request, is not renamed by it, and outlives it", async () => {
      const { target, cluster, pool } = await start();
      const cid = cidOf("operator");
      cluster.pins.set(cid, operatorsPin(cid));
      const ids = [
        await accept(pool, { account: "a", cid, name: "mine", meta: { a: "b" } }),
        await accept(pool, { account: "b", cid, name: "mine too" }),
      ];
      await isDone(target);
      for (const id of ids) expect(await standingOf(target, id)).toBe("pinned");
      for (const id of ids) await remove(pool, id);
      await isDone(target);
      expect(cluster.pins.get(cid)).toEqual(operatorsPin(cid));
      expect([callsOf(cluster, "POST"), callsOf(cluster, "DELETE")]).toEqual([[], []]);
    });

    test("a request that is deleted before its turn takes nothing with it", async () => {
      const { target, cluster, worker, pool } = await start();
      await worker.stop();
      const cid = cidOf("unsent");
      cluster.pins.set(cid, operatorsPin(cid));
      await remove(pool, await accept(pool, { account: "a", cid }));
      workOn(target, cluster);
      await isDone(target);
      expect(cluster.pins.get(cid)).toEqual(operatorsPin(cid));
    });

    test("each spelling has its own owner", async () => {
      const { target, cluster, pool } = await start();
      cluster.pins.set(V0, operatorsPin(V0));
      const id = await accept(pool, { account: "a", cid: V1, name: "mine" });
      await isDone(target);
      expect(cluster.pins.get(V1)).toMatchObject(MARKED);
      await remove(pool, id);
      await isDone(target);
      expect([...cluster.pins.values()]).toEqual([operatorsPin(V0)]);
    });

    test("one that is direct or expires is made to last, as the operator's", async () => {
      const { target, cluster, pool } = await start();
      const [direct, expires] = [cidOf("direct"), cidOf("expires")];
      cluster.pins.set(direct, operatorsPin(direct, { mode: "direct", max_depth: 0 }));
      cluster.pins.set(
        expires,
        operatorsPin(expires, {
          expire_at: "2090-01-01T00:00:00Z",
          allocations: ["12D3KooWPeer0"],
          replication_factor_min: 2,
          replication_factor_max: 3,
        }),
      );
      const ids = [
        await accept(pool, { account: "a", cid: direct, name: "mine" }),
        await accept(pool, { account: "a", cid: expires, name: "mine" }),
      ];
      await isDone(target);
      for (const id of ids) await remove(pool, id);
      await isDone(target);
      for (const cid of [direct, expires])
        expect(cluster.pins.get(cid)).toMatchObject({
          name: "the operator's",
          metadata: { team: "ops" },
          mode: "recursive",
          expire_at: "0001-01-01T00:00:00Z",
        });
      expect(cluster.pins.get(expires)).toMatchObject({
        replication_factor_min: 2,
        replication_factor_max: 3,
      });
    });

    test("a pin that the operator makes over an account's stays when the request goes", async () => {
      const { target, cluster, pool } = await start();
      const cid = cidOf("over");
      const id = await accept(pool, { account: "a", cid });
      await isDone(target);
      cluster.pins.set(cid, operatorsPin(cid));
      await remove(pool, id);
      await isDone(target);
      expect(cluster.pins.get(cid)).toEqual(operatorsPin(cid));
    });

    test("one that the operator takes away becomes the account's", async () => {
      const { target, cluster, pool } = await start();
      const cid = cidOf("away");
      cluster.pins.set(cid, operatorsPin(cid));
      const id = await accept(pool, { account: "a", cid, name: "mine" });
      await isDone(target);
      cluster.pins.delete(cid);
      await sql(
        target,
        "INSERT INTO pin_work (requestid, account, cid, action, deadline_at) VALUES ($1, 'a', $2, 'pin', 'infinity')",
        [id, cid],
      );
      await isDone(target);
      expect(cluster.pins.get(cid)).toMatchObject(MARKED);
      await remove(pool, id);
      await isDone(target);
      expect(cluster.pins.has(cid)).toBe(false);
    });

    test("an account's pin is known by its mark: after a lost answer, a restore, and on another master", async () => {
      const { target, cluster, pool, worker } = await start();
      const cid = cidOf("lost answer");
      let calls = 0;
      cluster.gate = async (method) => (method === "POST" && calls++ === 0 ? "lose" : "apply");
      const lost = await accept(pool, {
        account: "a",
        cid,
        name: "first",
        meta: { "fula-node-database": "x" },
      });
      await isDone(target);
      expect(await standingOf(target, lost)).toBe("pinned");
      await worker.stop();
      const restored = apiPin(cluster.pins.get(cid) ?? { cid });
      const second = await startClusterDouble({ peers: 1, pins: [{ ...restored, cid }] });
      onTestFinished(() => second.stop());
      workOn(target, second);
      const other = await accept(pool, { account: "b", cid, name: "second" });
      await isDone(target);
      expect(second.pins.get(cid)).toMatchObject(MARKED);
      for (const id of [lost, other]) await remove(pool, id);
      await isDone(target);
      expect(second.pins.has(cid)).toBe(false);
    });

    test("a client can't forge the mark, and another database's pin is not an account's", async () => {
      const { target, cluster, pool } = await start();
      const [row] = await sql<{ mark: string }>(target, "SELECT mark FROM pin_mark");
      const [own, cid] = [cidOf("own"), cidOf("other master")];
      const mark = randomUUID();
      await accept(pool, { account: "a", cid: own, meta: { "fula-node-database": mark, app: "x" } });
      const theirs = operatorsPin(cid, { metadata: { "fula-node-database": mark } });
      cluster.pins.set(cid, theirs);
      const id = await accept(pool, { account: "a", cid });
      await isDone(target);
      expect(cluster.pins.get(own)?.["metadata"]).toEqual({ "fula-node-database": row?.mark });
      await remove(pool, id);
      await isDone(target);
      expect(cluster.pins.get(cid)).toEqual(theirs);
    });

    test("pins of requests from before the mark, and of upstream's API, have none and are still unpinned by their owners", async () => {
      const target = await postgres.createDatabase();
      const cluster = await startClusterDouble({ peers: 1 });
      onTestFinished(() => cluster.stop());
      const pool = poolOf(target);
      const [kept, gone, shared, renamed, sent] = ["kept", "gone", "shared", "renamed", "sent"].map(
        cidOf,
      ) as [string, string, string, string, string];
      const old = new Map<string, string>();
      for (const cid of [kept, gone, shared, renamed]) {
        cluster.pins.set(cid, { cid, name: "upstream's" });
        old.set(cid, randomUUID());
        await sql(
          target,
          "INSERT INTO pins (requestid, user_id, username, cid, status, size) VALUES ($1, 'a', 'a', $2, 'pinned', 5)",
          [old.get(cid), cid],
        );
      }
      // Upstream sent it, and did not write that down.
      cluster.pins.set(sent, { cid: sent, name: "upstream's" });
      await sql(
        target,
        "INSERT INTO pins (requestid, user_id, cid, status) VALUES ('sent', 'a', $1, 'queued')",
        [sent],
      );
      const worker = workOn(target, cluster);
      await expect.poll(() => standingOf(target, "sent"), SLOW).toBe("pinned");
      const added = {
        requestid: "fn-new",
        pin: { cid: parseCid(renamed), name: "new name", origins: [], meta: "{}" },
        delegates: [],
      } as unknown as Parameters<typeof replacePin>[3];
      const limits = { freeTierBytes: 1_000_000, maxPending: null, deadlineSeconds: 60 };
      const replaced = await replacePin(pool, [null, "a"], old.get(renamed) ?? "", added, limits);
      expect(replaced).toMatchObject({ kind: "accepted", status: { status: "pinned", requestid: "new" } });
      const other = await accept(pool, { account: "b", cid: shared, name: "b's" });
      await isDone(target);
      for (const id of [old.get(gone), old.get(shared), other, "new", "sent"]) await remove(pool, id ?? "");
      await isDone(target);
      expect([...cluster.pins.keys()]).toEqual([kept]);
      await worker.stop();
    });

    declarePartTests(postgres, {
      file: "030_pin_mark.sql",
      breaks: [["ALTER TABLE pin_mark DROP COLUMN mark", "column pin_mark.mark uuid"]],
    });

    test("030 down refuses while pins have the mark", async () => {
      const target = await postgres.createDatabase();
      const id = await accept(poolOf(target), { account: "a", cid: cidOf("marked") });
      await expect(migratorOf().down(target, [30], listen())).rejects.toMatchObject({
        exit: "drift",
        what: "030_pin_mark.down.sql refuses: pins in the cluster carry the mark of this database.",
      });
      await sql(target, "UPDATE pins SET status = 'deleted' WHERE requestid = $1", [id]);
      await migratorOf().down(target, [30], listen());
      await migratorOf().up(target, listen());
    });
  },
  { template: migrate },
);
