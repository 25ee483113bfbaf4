import { createHash } from "node:crypto";
import { base58btc } from "multiformats/bases/base58";
import { CID } from "multiformats/cid";
import { expect, onTestFinished, test } from "vitest";
import { cidOf } from "../support/cids.ts";
import { type ClusterDouble, startClusterDouble } from "../support/cluster-double.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { accept, factsOf, remove, standingOf, workLeft, workOn } from "../support/pin-requests.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";

async function double(peers = 1): Promise<ClusterDouble> {
  const started = await startClusterDouble({ peers });
  onTestFinished(() => started.stop());
  return started;
}

/** Every peer reports this for the CID, whatever its pinset says. */
function report(cluster: ClusterDouble, cid: string, status: string): void {
  for (const peer of cluster.peers) peer.statuses.set(cid, status);
}

function callsOf(cluster: ClusterDouble, start: string): number {
  return cluster.requests.filter((request) => request.startsWith(start)).length;
}

const SLOW = { timeout: 60_000 };
const ORIGIN = "/ip4/203.0.113.1/tcp/4001/p2p/12D3KooWPpCqtyYrVhxEbzRsm8ypnDvN4kFDTTqnAqvPYDd6PT9b";
const V0 = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG";
const V1 = CID.parse(V0).toV1().toString();

describeOnPostgres(
  "the worker of pin requests",
  (postgres) => {
    test("pins a request with its origins and without its name and metadata, and finds its size", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      const cid = cidOf("one");
      const id = await accept(pool, {
        account: "u",
        cid,
        name: "näme",
        meta: { app: "x" },
        origins: [ORIGIN, "nonsense"],
      });
      workOn(target, cluster);
      await expect.poll(() => standingOf(target, id), SLOW).toBe("pinned");
      expect(await factsOf(target, id)).toEqual({ info: {}, size: 1000 });
      expect(cluster.pins.get(cid)).toMatchObject({
        origins: [ORIGIN],
        replication_factor_min: -1,
        allocations: [],
      });
      // Others read the pinset: what an account wrote about its content is not in it.
      const [row] = await sql<{ mark: string }>(target, "SELECT mark FROM pin_mark");
      expect(cluster.pins.get(cid)).toMatchObject({ name: "" });
      expect(cluster.pins.get(cid)?.["metadata"]).toEqual({ "fula-node-database": row?.mark });
      expect(await workLeft(target)).toBe(0);
    });

    test("a master that the others do not trust leaves every request to them, and works once they do", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      const id = await accept(pool, { account: "u", cid: cidOf("of whoever is trusted") });
      let [why, asked]: [string | null, number] = ["the master a does not trust this one", 0];
      const heldBack = async (): Promise<string | null> => {
        asked += 1;
        return why;
      };
      const worker = workOn(target, cluster, { heldBack, settings: { watchEveryMs: 50 } });
      await expect.poll(() => asked, SLOW).toBeGreaterThan(10);
      expect(cluster.requests).toEqual([]);
      expect(await standingOf(target, id)).toBe("queued, send");
      expect(worker.state().fault).toBe("trust: the master a does not trust this one");
      why = null;
      await expect.poll(() => standingOf(target, id), SLOW).toBe("pinned");
      expect(worker.state().fault).toBeNull();
      expect(worker.lines).toContain("pin queue: the other masters trust this one");
    });

    test("an account's pin that is there keeps the operator's copies, and loses its expiry", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      const cid = cidOf("there");
      const [row] = await sql<{ mark: string }>(target, "SELECT mark FROM pin_mark");
      cluster.pins.set(cid, {
        cid,
        name: "old",
        metadata: { "fula-node-database": row?.mark },
        replication_factor_min: 2,
        replication_factor_max: 3,
        expire_at: "2030-01-01T00:00:00Z",
        allocations: ["12D3KooWPeer0"],
      });
      const id = await accept(pool, { account: "u", cid, name: "new", meta: { long: "x".repeat(8_000) } });
      workOn(target, cluster);
      await expect.poll(() => standingOf(target, id), SLOW).toBe("pinned");
      expect(cluster.pins.get(cid)).toMatchObject({
        name: "",
        replication_factor_min: 2,
        replication_factor_max: 3,
        expire_at: "0001-01-01T00:00:00Z",
        metadata: {},
      });
    });

    test("a deleted request is unpinned, in both spellings, unless another account has the content", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      const a = await accept(pool, { account: "a", cid: V0 });
      const b = await accept(pool, { account: "b", cid: V1 });
      workOn(target, cluster);
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      expect([...cluster.pins.keys()].sort()).toEqual([V0, V1].sort());
      await remove(pool, a);
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      expect(callsOf(cluster, "DELETE")).toBe(0);
      await remove(pool, b);
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      expect([...cluster.pins.keys()]).toEqual([]);
    });

    test("one of an account's two requests for a content carries its size", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      for (const account of ["a", "a", "b"]) await accept(pool, { account, cid: V0 });
      await accept(pool, { account: "a", cid: V1 });
      workOn(target, cluster);
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      expect(
        await sql(target, "SELECT user_id, sum(size)::integer AS size FROM pins GROUP BY 1 ORDER BY 1"),
      ).toEqual([
        { user_id: "a", size: 1000 },
        { user_id: "b", size: 1000 },
      ]);
    });

    test("a size that does not come at first is asked for again (H25)", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      const id = await accept(pool, { account: "u", cid: cidOf("large") });
      const limits: number[] = [];
      workOn(target, cluster, {
        dagSize: async (_cid, limitMs) => {
          limits.push(limitMs);
          if (limits.length === 1) throw new Error("too slow");
          return 5;
        },
      });
      await expect.poll(() => standingOf(target, id), SLOW).toBe("pinned, size");
      await expect.poll(() => limits, SLOW).toEqual([30_000]);
      await sql(target, "UPDATE pin_work SET due_at = now() WHERE last_error = 'too slow'");
      await expect.poll(() => standingOf(target, id), SLOW).toBe("pinned");
      expect(limits).toEqual([30_000, 60_000]);
      expect(await factsOf(target, id)).toMatchObject({ size: 5 });
    });

    test("what became blocked before its turn is never sent, in any spelling or codec (H15)", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      await sql(target, "INSERT INTO blocked_cids (cid) VALUES ($1)", [V1]);
      const raw = CID.createV1(0x55, CID.parse(V0).multihash).toString();
      const ids = await Promise.all([V0, V1, raw].map((cid) => accept(pool, { account: "u", cid })));
      workOn(target, cluster);
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      for (const id of ids) {
        expect(await standingOf(target, id)).toBe("failed");
        expect(await factsOf(target, id)).toMatchObject({ info: { reason: "BLOCKED" } });
      }
      expect(callsOf(cluster, "POST")).toBe(0);
    });

    test("without credit it stays queued with the reason, and is sent once there is credit (H25)", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      let has: boolean | Error = new Error("the lookup failed");
      const id = await accept(pool, { account: "u", cid: cidOf("paid") });
      const late = await accept(pool, { account: "u", cid: cidOf("late"), deadlineMs: 0 });
      workOn(target, cluster, {
        mayPin: async () => {
          if (typeof has !== "boolean") throw has;
          return has;
        },
      });
      const errorOf = async () =>
        (await sql(target, "SELECT last_error FROM pin_work WHERE requestid = $1", [id]))[0];
      await expect
        .poll(
          async () =>
            (await sql(target, "SELECT FROM pin_work WHERE due_at > now() + interval '1 second'")).length,
          SLOW,
        )
        .toBe(2);
      expect(await standingOf(target, id)).toBe("queued, send");
      has = false;
      await expect.poll(errorOf, SLOW).toEqual({ last_error: "INSUFFICIENT_CREDITS" });
      expect(await standingOf(target, id)).toBe("queued, send");
      expect(await factsOf(target, id)).toMatchObject({ info: { reason: "INSUFFICIENT_CREDITS" } });
      await expect.poll(() => standingOf(target, late), SLOW).toBe("failed");
      expect(await factsOf(target, late)).toMatchObject({ info: { reason: "INSUFFICIENT_CREDITS" } });
      expect(callsOf(cluster, "POST")).toBe(0);
      has = true;
      await sql(target, "UPDATE pin_work SET due_at = now()");
      await expect.poll(() => standingOf(target, id), SLOW).toBe("pinned");
      expect(await factsOf(target, id)).toMatchObject({ info: {} });
    });

    test("content that nobody has fails at its deadline, with the reason, and leaves the cluster (H04)", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      const [lone, shared] = [cidOf("lone"), cidOf("shared")];
      for (const cid of [lone, shared]) report(cluster, cid, "pinning");
      const ids = [
        await accept(pool, { account: "u", cid: lone, deadlineMs: 4_000 }),
        await accept(pool, { account: "u", cid: shared, deadlineMs: 4_000 }),
      ];
      const other = await accept(pool, { account: "v", cid: shared });
      workOn(target, cluster);
      await expect.poll(() => standingOf(target, ids[0] ?? ""), SLOW).toBe("pinning, look");
      for (const id of ids) {
        await expect.poll(() => standingOf(target, id), SLOW).toBe("failed");
        expect(await factsOf(target, id)).toMatchObject({
          info: { reason: "DEADLINE_EXCEEDED", details: "No node found the content in time." },
        });
      }
      expect(await standingOf(target, other)).toBe("pinning, look");
      expect([...cluster.pins.keys()]).toEqual([shared]);

      cluster.peers[0]?.statuses.delete(lone);
      const again = await accept(pool, { account: "u", cid: lone });
      await expect.poll(() => standingOf(target, again), SLOW).toBe("pinned");
    });

    test("a user with 1,000 CIDs that nobody has does not delay another's one pin (H04)", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      const cids = Array.from({ length: 1000 }, (_, index) => cidOf(`nobody ${index}`));
      for (const cid of cids) report(cluster, cid, "pinning");
      await Promise.all(cids.map((cid) => accept(pool, { account: "a", cid })));
      // On a loaded machine a short lease can end while its holder waits for the processor.
      const worker = workOn(target, cluster, { settings: { leaseMs: 20_000 } });
      await expect.poll(() => cluster.pins.size, SLOW).toBeGreaterThanOrEqual(4);
      const b = await accept(pool, { account: "b", cid: cidOf("somebody") });
      await expect.poll(() => standingOf(target, b), { ...SLOW, interval: 20 }).toBe("pinned");
      expect(callsOf(cluster, "POST")).toBeLessThan(32);
      // All were searched for in vain.
      await sql(target, "UPDATE pin_work SET deadline_at = now(), attempts = 3 WHERE account = 'a'");
      await hurry(target);
      let most = 0;
      await expect
        .poll(
          async () => {
            most = Math.max(most, cluster.pins.size);
            return (await sql(target, "SELECT FROM pins WHERE user_id = 'a' AND status = 'failed'")).length;
          },
          { timeout: 240_000 },
        )
        .toBe(1000);
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      expect([...cluster.pins.keys()]).toEqual([cidOf("somebody")]);
      // Some wait for their own removal while the next ones are sent.
      expect(most).toBeLessThanOrEqual(32);
      expect(worker.state()).toMatchObject({ fault: null });
    }, 360_000);

    test("a request whose turn has not come does not fail at its deadline, which begins with its first turn (H04)", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      for (let at = 0; at < 20; at++) {
        report(cluster, cidOf(`before it ${at}`), "pinning");
        await accept(pool, { account: "a", cid: cidOf(`before it ${at}`), deadlineMs: 600_000 });
      }
      const there = await accept(pool, { account: "a", cid: cidOf("behind"), deadlineMs: 1_000 });
      const later = await accept(pool, { account: "a", cid: cidOf("later") });
      await sql(
        target,
        "UPDATE pin_work SET accepted_at = accepted_at - interval '1 s', due_at = due_at - interval '1 s'",
      );
      workOn(target, cluster, { settings: { deadlineMs: 600_000 } });
      await expect
        .poll(async () => (await factsOf(target, there)).info, SLOW)
        .toMatchObject({ reason: "WAITS_FOR_ITS_TURN" });
      expect(await standingOf(target, there)).toBe("queued, send");
      // It did not lose its place to what came after it.
      expect(
        await sql(
          target,
          `SELECT w.due_at < l.due_at AS before, w.deadline_at > now() AS again FROM pin_work w, pin_work l
           WHERE w.requestid = $1 AND l.requestid = $2`,
          [there, later],
        ),
      ).toEqual([{ before: true, again: true }]);
      await sql(target, "DELETE FROM pin_work WHERE account = 'a' AND requestid <> $1", [there]);
      await expect.poll(() => standingOf(target, there), SLOW).toBe("pinned");
      expect((await factsOf(target, there)).info).toEqual({});

      // The whole time is for the search.
      report(cluster, cidOf("late"), "pinning");
      const late = await pool.transaction(async (database) => {
        const id = await accept(database, { account: "b", cid: cidOf("late"), deadlineMs: 600_000 });
        // Before the worker sees it.
        await database.query(
          "UPDATE pin_work SET accepted_at = accepted_at - interval '9 minutes', deadline_at = deadline_at - interval '9 minutes' WHERE requestid = $1",
          [id],
        );
        return id;
      });
      await expect.poll(() => standingOf(target, late), SLOW).toBe("pinning, look");
      expect(
        await sql(
          target,
          "SELECT deadline_at > now() + interval '9 minutes' AS whole FROM pin_work WHERE requestid = $1",
          [late],
        ),
      ).toEqual([{ whole: true }]);
    }, 120_000);

    test("100 CIDs that nobody has do not keep one that is there from its turn, in the same account (H04)", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      const missing = Array.from({ length: 100 }, (_, index) => cidOf(`missing ${index}`));
      for (const cid of missing) report(cluster, cid, "pinning");
      const ids: string[] = [];
      for (const cid of missing) ids.push(await accept(pool, { account: "a", cid }));
      const there = await accept(pool, { account: "a", cid: cidOf("there") });
      let most = 0;
      cluster.gate = async (method) => {
        if (method === "POST") most = Math.max(most, cluster.pins.size + 1);
        return "apply";
      };
      /** The time that passes for what is in the cluster. */
      const later = async (): Promise<void> => {
        await sql(
          target,
          `UPDATE pin_work SET sent_at = sent_at - interval '30 seconds', due_at = now()
           WHERE phase = 'look' AND claim IS NULL`,
        );
      };
      workOn(target, cluster);
      const standing = async (id: string): Promise<string> => {
        await later();
        return standingOf(target, id);
      };
      await expect.poll(() => standing(there), SLOW).toMatch(/^pinned/);
      // Four that are new, four that were searched for, and the one that is there.
      expect(most).toBeLessThanOrEqual(9);
      const statuses = await sql(target, "SELECT DISTINCT status FROM pins WHERE cid <> $1 ORDER BY status", [
        cidOf("there"),
      ]);
      expect(statuses).toEqual([{ status: "pinning" }, { status: "queued" }]);
      const waiting = await sql<{ requestid: string; info: string }>(
        target,
        "SELECT requestid, info FROM pins WHERE status = 'queued' AND info <> '{}'",
      );
      expect(waiting.length).toBeGreaterThan(80);
      const details = "No node has found it yet. It is searched for again until its deadline.";
      expect(JSON.parse(waiting[0]?.info ?? "")).toEqual({ reason: "NOT_FOUND_YET", details });

      // Each gets another turn, and is pinned once somebody has it.
      const found = waiting.at(-1)?.requestid ?? "";
      cluster.peers[0]?.statuses.delete(missing[ids.indexOf(found)] ?? "");
      await hurry(target);
      await expect.poll(() => standing(found), SLOW).toMatch(/^pinned/);
      expect(await factsOf(target, found)).toMatchObject({ info: {} });
      expect(most).toBeLessThanOrEqual(9);

      // While all of those are due again, a new request has its turn at once.
      const isNew = "SELECT FROM pin_work WHERE attempts = 0 AND phase IN ('send', 'look')";
      const untried = async (): Promise<number> => {
        await later();
        await hurry(target);
        return (await sql(target, isNew)).length;
      };
      await expect.poll(untried, SLOW).toBeLessThan(4);
      const late = await accept(pool, { account: "a", cid: cidOf("late") });
      await expect.poll(() => standingOf(target, late), { timeout: 15_000 }).toMatch(/^pinned/);

      // What was searched for has failed at its deadline, though it is not in the cluster then.
      cluster.gate = async (method) => (method === "POST" ? "drop" : "apply");
      const [resting] = await sql<{ requestid: string }>(
        target,
        `UPDATE pin_work SET deadline_at = now(), attempts = 1, due_at = now() WHERE requestid =
           (SELECT requestid FROM pin_work
            WHERE phase = 'send' AND last_error = 'no node has found it yet' AND claim IS NULL LIMIT 1)
         RETURNING requestid`,
      );
      const id = resting?.requestid ?? "";
      await expect.poll(() => standingOf(target, id), SLOW).toBe("failed");
      expect(await factsOf(target, id)).toMatchObject({
        info: { reason: "DEADLINE_EXCEEDED", details: "No node found the content in time." },
      });
    }, 180_000);

    test("pin_error everywhere: retried, out of the cluster in between, then failed with the peer's error (H13)", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(2), poolOf(target)];
      const cid = cidOf("broken");
      cluster.keepsStatuses = true;
      report(cluster, cid, "pin_error");
      cluster.errors.set(cid, "context deadline exceeded");
      const id = await accept(pool, { account: "u", cid });
      await sql(target, "UPDATE pin_work SET deadline_at = now() + interval '90 seconds'");
      workOn(target, cluster);
      const recovered = () => callsOf(cluster, `POST /pins/${cid}/recover`);
      // Again and again: when a call is seen, the worker still has its claim.
      const lookNow = () =>
        sql(target, "UPDATE pin_work SET due_at = now() WHERE claim IS NULL AND phase = 'look'");
      await expect.poll(() => lookNow().then(recovered), SLOW).toBe(2);
      await expect.poll(() => lookNow().then(() => standingOf(target, id)), SLOW).toBe("queued, send");
      expect(recovered()).toBe(2);
      expect(cluster.pins.size).toBe(0);
      expect(await factsOf(target, id)).toMatchObject({
        info: {
          reason: "NOT_FOUND_YET",
          details:
            "No node could get it yet: context deadline exceeded. It is searched for again until its deadline.",
        },
      });
      // It rests for two minutes, but not beyond its deadline.
      expect(await sql(target, "SELECT FROM pin_work WHERE due_at > deadline_at")).toEqual([]);
      await sql(target, "UPDATE pin_work SET deadline_at = now() + interval '1 hour'");
      await hurry(target);
      await expect.poll(() => cluster.pins.size, SLOW).toBe(1);
      // A send that is under way begins the deadline again.
      const endNow = () =>
        sql(target, "UPDATE pin_work SET deadline_at = now(), due_at = now() WHERE claim IS NULL");
      await expect.poll(() => endNow().then(() => standingOf(target, id)), SLOW).toBe("failed");
      expect(await factsOf(target, id)).toMatchObject({
        info: {
          reason: "PIN_ERROR",
          details: "No node could get the content: context deadline exceeded",
        },
      });
      expect(cluster.pins.size).toBe(0);
    });

    test("a cluster that lost a pin it had accepted gets it again", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      const cid = cidOf("forgotten");
      report(cluster, cid, "pinning");
      const id = await accept(pool, { account: "u", cid });
      workOn(target, cluster);
      await expect.poll(() => standingOf(target, id), SLOW).toBe("pinning, look");
      cluster.pins.delete(cid);
      cluster.peers[0]?.statuses.delete(cid);
      await expect.poll(() => standingOf(target, id), SLOW).toBe("pinned");
      expect(cluster.pins.has(cid)).toBe(true);
    });

    test("requests of upstream's API that nobody works on are taken over", async () => {
      const target = await postgres.createDatabase();
      const cluster = await double();
      const insert = `INSERT INTO pins (requestid, username, user_id, cid, status, meta, origins) VALUES ($1, $2, $3, $4, $5, $6, '')`;
      await sql(target, insert, ["r1", "Ann@x.org", null, V0, "queued", "no json"]);
      await sql(target, insert, ["r2", null, "u2", V1, "pinning", "{}"]);
      await sql(target, insert, ["r3", null, "u3", "not a cid", "queued", "{}"]);
      await sql(target, insert, ["r4", null, "u3", V0, "pinned", "{}"]);
      const { lines } = workOn(target, cluster);
      await expect.poll(() => standingOf(target, "r2"), SLOW).toBe("pinned");
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      expect(await standingOf(target, "r1")).toBe("pinned");
      expect(await factsOf(target, "r3")).toMatchObject({ info: { reason: "INVALID_CID" } });
      expect(lines).toEqual([
        "pin queue: 1 requests that had only a name have its account now",
        "pin queue: took over 3 requests that nobody worked on",
      ]);
    });

    test("requests of upstream's API that have only a name get the account of a session with that name", async () => {
      const target = await postgres.createDatabase();
      const insert =
        "INSERT INTO pins (requestid, username, user_id, cid, status, size) VALUES ($1, $2, $3, $4, 'pinned', 7)";
      const id = "Ab".repeat(32);
      const named = ["Ann@X.org", "ann", id, "e".repeat(65), null, ""];
      for (const [at, name] of named.entries()) await sql(target, insert, [`r${at}`, name, null, V1]);
      await sql(target, insert, ["r9", "Ann@X.org", "as it is", V1]);
      workOn(target, await double());
      const accounts = async () => {
        const rows = await sql<{ account: string | null }>(
          target,
          "SELECT user_id AS account FROM pins ORDER BY requestid",
        );
        return rows.map(({ account }) => account);
      };
      const ann = createHash("sha256").update("ann@x.org").digest("hex");
      await expect.poll(accounts, SLOW).toEqual([ann, "ann", id.toLowerCase(), null, null, null, "as it is"]);
      // What they store counts for their accounts from now on.
      expect(
        await sql(
          target,
          "SELECT account, sum(bytes)::int AS bytes FROM account_usage GROUP BY account ORDER BY account",
        ),
      ).toEqual(
        expect.arrayContaining([
          { account: ann, bytes: 7 },
          { account: "ann", bytes: 7 },
        ]),
      );
    });

    test("content that upstream's API wrote in another spelling stays while one request has it", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      const insert = "INSERT INTO pins (requestid, user_id, cid, status) VALUES ($1, $2, $3, 'pinned')";
      const z = CID.parse(V1).toString(base58btc);
      await sql(target, insert, ["r1", "ann", z]);
      const id = await accept(pool, { account: "bob", cid: V1 });
      workOn(target, cluster);
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      await remove(pool, id);
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      expect(cluster.pins.has(V1)).toBe(true);
      await remove(pool, "r1");
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      expect(cluster.pins.size).toBe(0);
    });
  },
  { template: migrate },
);

async function hurry(target: Parameters<typeof sql>[0]): Promise<void> {
  await sql(target, "UPDATE pin_work SET due_at = now() WHERE claim IS NULL");
}
