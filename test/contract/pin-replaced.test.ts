import { randomUUID } from "node:crypto";
import { expect, onTestFinished, test } from "vitest";
import { endRequestsFor } from "../../src/pinning/blocked.ts";
import { type ParsedCid, parseCid, spellingsOfContent } from "../../src/pinning/content-id.ts";
import { putOff, writeOutcomes } from "../../src/pinning/outcomes.ts";
import { newRequestId } from "../../src/pinning/pin-owner.ts";
import { removePin, replacePin } from "../../src/pinning/pin-store.ts";
import { claimWork, readDepth } from "../../src/pinning/queue.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { cidOf } from "../support/cids.ts";
import { type ClusterDouble, startClusterDouble } from "../support/cluster-double.ts";
import { declarePartTests } from "../support/migration-parts.ts";
import { catalogueOf, listen, migratorOf } from "../support/migrations.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import {
  accept,
  factsOf,
  remove,
  standingOf,
  WHATEVER_IS_DUE,
  workLeft,
  workOn,
} from "../support/pin-requests.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";

const SLOW = { timeout: 30_000 };
const LIMITS = { freeTierBytes: 1e9, maxPending: null, deadlineSeconds: 3_600 };
const [OLD, NEW, NEXT] = [cidOf("old"), cidOf("new"), cidOf("next")];
const BYTES: Readonly<Record<string, number>> = { [OLD]: 1_000, [NEW]: 20, [NEXT]: 3 };

function contentAt(text: string): ParsedCid {
  const cid = parseCid(text);
  if (cid === null) throw new Error("it is a CID");
  return cid;
}

describeOnPostgres(
  "a request that replaces another content",
  (postgres) => {
    async function start() {
      const target = await postgres.createDatabase();
      const cluster = await startClusterDouble({ peers: 1 });
      onTestFinished(() => cluster.stop());
      const work = () => workOn(target, cluster, { dagSize: async (cid) => BYTES[cid] ?? -1 });
      return { target, cluster, work, worker: work(), pool: poolOf(target) };
    }
    type Started = Awaited<ReturnType<typeof start>>;

    async function pinned({ pool, target }: Started, account = "u", cid = OLD): Promise<string> {
      const id = await accept(pool, { account, cid });
      await expect.poll(() => standingOf(target, id), SLOW).toBe("pinned");
      return id;
    }

    async function replace({ pool }: Started, id: string, text: string, account = "u", name = "") {
      const cid = contentAt(text);
      const added = {
        requestid: newRequestId(),
        pin: { cid, name, origins: [], meta: "{}" },
        delegates: [],
      };
      const outcome = await replacePin(pool, [null, account], id, added, LIMITS);
      if (outcome.kind !== "accepted") throw new Error(outcome.kind);
      return outcome.status.requestid;
    }

    const lose = (cluster: ClusterDouble, cid: string) => cluster.peers[0]?.statuses.set(cid, "pinning");
    const find = async ({ cluster, target }: Started, cid: string): Promise<void> => {
      cluster.peers[0]?.statuses.delete(cid);
      await soon(target);
    };
    const soon = (target: PostgresTarget) =>
      sql(target, "UPDATE pin_work SET due_at = now() WHERE claim IS NULL");
    const there = ({ cluster }: Started) => [...cluster.pins.keys()].sort();
    const usage = async ({ target }: Started, account = "u"): Promise<number> => {
      const [row] = await sql<{ bytes: number }>(
        target,
        "SELECT coalesce(sum(bytes), 0)::int AS bytes FROM account_usage WHERE account = $1",
        [account],
      );
      return row?.bytes ?? -1;
    };
    /** Until what is kept was looked at so often. */
    const looked = ({ target }: Started, times: number) =>
      expect
        .poll(async () => {
          await soon(target);
          const rows = await sql<{ attempts: number }>(
            target,
            "SELECT attempts FROM pin_work WHERE waits_for IS NOT NULL",
          );
          return rows.every(({ attempts }) => attempts >= times);
        }, SLOW)
        .toBe(true);

    test("keeps the old one pinned, and counted, until the new one is pinned", async () => {
      const started = await start();
      const { target, cluster } = started;
      const old = await pinned(started);
      await expect.poll(() => usage(started), SLOW).toBe(1_000);
      lose(cluster, NEW);
      const id = await replace(started, old, NEW);
      await expect.poll(() => standingOf(target, id), SLOW).toBe("pinning, look");
      await looked(started, 3);
      expect(there(started)).toEqual([OLD, NEW].sort());
      expect(await standingOf(target, old)).toBe("deleted, unpin");
      expect(await usage(started)).toBe(1_000);
      await find(started, NEW);
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      expect(there(started)).toEqual([NEW]);
      expect(await usage(started)).toBe(20);
    });

    test("frees the old one, if it is deleted before that", async () => {
      const started = await start();
      const { target, cluster, pool } = started;
      lose(cluster, NEW);
      const id = await replace(started, await pinned(started), NEW);
      await looked(started, 2);
      expect(there(started)).toContain(OLD);
      await removePin(pool, [null, "u"], id, LIMITS);
      expect(await usage(started)).toBe(0);
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      expect(there(started)).toEqual([]);
    });

    test.each(["by another one", "by itself with another name"])(
      "keeps it until the last one is pinned, if it is replaced again %s",
      async (how) => {
        const started = await start();
        const { target, cluster } = started;
        const last = how === "by another one" ? NEXT : NEW;
        lose(cluster, NEW);
        lose(cluster, NEXT);
        const id = await replace(started, await pinned(started), NEW);
        const next = await replace(started, id, last, "u", "other");
        await expect.poll(() => standingOf(target, next), SLOW).toBe("pinning, look");
        await looked(started, 2);
        expect(there(started)).toEqual([OLD, last].sort());
        expect(await usage(started)).toBe(1_000);
        await find(started, last);
        await expect.poll(() => workLeft(target), SLOW).toBe(0);
        expect(there(started)).toEqual([last]);
        expect(await usage(started)).toBe(BYTES[last]);
      },
    );

    test("keeps it if it fails, and says so; frees it when the failed one is deleted, or its replacement pinned", async () => {
      const started = await start();
      const { target, cluster, pool } = started;
      const [a, b] = [await pinned(started, "a"), await pinned(started, "b", NEXT)];
      lose(cluster, NEW);
      const failing = [await replace(started, a, NEW, "a"), await replace(started, b, NEW, "b")];
      for (const id of failing) await expect.poll(() => standingOf(target, id), SLOW).toBe("pinning, look");
      await sql(target, "UPDATE pin_work SET deadline_at = now(), due_at = now() WHERE cid = $1", [NEW]);
      for (const id of failing) await expect.poll(() => standingOf(target, id), SLOW).toBe("failed");
      await looked(started, 6);
      expect(there(started)).toEqual([OLD, NEXT].sort());
      expect(await factsOf(target, failing[0] ?? "")).toEqual({
        info: { reason: "DEADLINE_EXCEEDED", details: expect.any(String) as string, stillPinned: OLD },
        size: 1_000,
      });
      expect([await usage(started, "a"), await usage(started, "b")]).toEqual([1_000, 3]);
      // It is no work that waits.
      expect(await readDepth(pool)).toMatchObject({ waiting: 0, oldestSeconds: 0 });

      await removePin(pool, [null, "a"], failing[0] ?? "", LIMITS);
      await find(started, NEW);
      const next = await replace(started, failing[1] ?? "", NEW, "b");
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      expect(await standingOf(target, next)).toBe("pinned");
      expect(there(started)).toEqual([NEW]);
      expect([await usage(started, "a"), await usage(started, "b")]).toEqual([0, 20]);
    });

    test.each(["deletes", "replaces", "blocks"])(
      "is freed at once by what %s, also while a worker looks whether it is kept",
      async (what) => {
        const started = await start();
        const { target, cluster, pool, worker, work } = started;
        const old = await pinned(started);
        await expect.poll(() => usage(started), SLOW).toBe(1_000);
        lose(cluster, NEW);
        const id = await replace(started, old, NEW);
        await looked(started, 1);
        await worker.stop();
        await soon(target);
        const claim = randomUUID();
        const { work: claimed } = await claimWork(pool, { ...WHATEVER_IS_DUE, phases: ["unpin"], claim });
        expect(claimed.map(({ requestid }) => requestid)).toEqual([old]);
        if (what === "deletes") await removePin(pool, [null, "u"], id, LIMITS);
        if (what === "replaces") await replace(started, id, NEW, "u", "other");
        if (what === "blocks") await endRequestsFor(pool, spellingsOfContent(contentAt(OLD)));
        await writeOutcomes(
          pool,
          claimed.map((one) => putOff(one, { inMs: 3_600_000, attempts: 14 })),
          3_600_000,
        );
        expect(
          await sql(target, "SELECT due_at <= now() AS due FROM pin_work WHERE requestid = $1", [old]),
        ).toEqual([{ due: true }]);
        cluster.peers[0]?.statuses.delete(NEW);
        work();
        await expect.poll(() => there(started), SLOW).not.toContain(OLD);
      },
    );

    test("does not keep what has no size, once it failed", async () => {
      const started = await start();
      const { target, cluster } = started;
      const old = await pinned(started);
      await sql(target, "UPDATE pins SET size = 0");
      lose(cluster, NEW);
      const id = await replace(started, old, NEW);
      await expect.poll(() => standingOf(target, id), SLOW).toBe("pinning, look");
      expect(there(started)).toContain(OLD);
      await sql(target, "UPDATE pin_work SET deadline_at = now(), due_at = now() WHERE cid = $1", [NEW]);
      await expect.poll(() => standingOf(target, id), SLOW).toBe("failed");
      await soon(target);
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      expect(there(started)).toEqual([]);
    });

    test("frees it once, also if two accounts had it and a third one deletes it meanwhile", async () => {
      const started = await start();
      const { target, cluster, pool } = started;
      const [a, b, c] = [await pinned(started, "a"), await pinned(started, "b"), await pinned(started, "c")];
      for (const cid of [NEW, NEXT]) lose(cluster, cid);
      await replace(started, a, NEW, "a");
      await replace(started, b, NEXT, "b");
      await remove(pool, c);
      await expect.poll(() => standingOf(target, c), SLOW).toBe("deleted");
      expect(there(started)).toContain(OLD);
      await find(started, NEW);
      await expect.poll(() => standingOf(target, a), SLOW).toBe("deleted");
      expect(there(started)).toContain(OLD);
      await find(started, NEXT);
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      expect(there(started)).toEqual([NEW, NEXT].sort());
    });

    test("frees it when a worker comes back, whatever ended the new one meanwhile", async () => {
      const started = await start();
      const { target, cluster, work } = started;
      const ids = [await pinned(started, "a"), await pinned(started, "b", NEXT)];
      lose(cluster, NEW);
      for (const [at, id] of ids.entries()) await replace(started, id, NEW, at === 0 ? "a" : "b");
      await looked(started, 2);
      expect(there(started)).toEqual([OLD, NEW, NEXT].sort());
      await started.worker.stop();
      // As another program would.
      await sql(target, "UPDATE pins SET status = 'deleted' WHERE cid = $1 AND user_id = 'a'", [NEW]);
      await sql(target, "DELETE FROM pins WHERE cid = $1 AND user_id = 'b'", [NEW]);
      await sql(target, "UPDATE pin_work SET due_at = now()");
      work();
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      expect(there(started)).toEqual([]);
    });

    test("has a size that is no other request's, and keeps nothing that the operator blocks", async () => {
      const started = await start();
      const { target, cluster, pool } = started;
      lose(cluster, NEW);
      const id = await replace(started, await pinned(started), NEW);
      const other = await accept(pool, { account: "u", cid: NEW });
      await removePin(pool, [null, "u"], id, LIMITS);
      expect(await factsOf(target, other)).toMatchObject({ size: 0 });
      await removePin(pool, [null, "u"], other, LIMITS);
      await expect.poll(() => workLeft(target), SLOW).toBe(0);

      const again = await replace(started, await pinned(started), NEW);
      await looked(started, 1);
      expect(await usage(started)).toBe(1_000);
      await endRequestsFor(pool, spellingsOfContent(contentAt(OLD)));
      expect(await usage(started)).toBe(0);
      await expect.poll(() => there(started), SLOW).not.toContain(OLD);
      await expect.poll(() => standingOf(target, again), SLOW).toBe("pinning, look");
    });

    declarePartTests(postgres, {
      file: "036_replaced_pins.sql",
      breaks: [
        ["DROP INDEX idx_pin_work_kept", "index idx_pin_work_kept"],
        ["ALTER TABLE pin_work ALTER waits_for SET NOT NULL", "column pin_work.waits_for text"],
      ],
    });

    test("036 down frees what is kept, and no longer counts it", async () => {
      const started = await start();
      const { target, cluster } = started;
      const before = await catalogueOf(target);
      lose(cluster, NEW);
      await replace(started, await pinned(started), NEW);
      await looked(started, 1);
      await started.worker.stop();
      expect(await usage(started)).toBe(1_000);
      await migratorOf().down(target, [36], listen());
      expect(await usage(started)).toBe(0);
      expect(
        await sql(target, "SELECT action FROM pin_work WHERE cid = $1 AND due_at <= now()", [OLD]),
      ).toEqual([{ action: "unpin" }]);
      await migratorOf().up(target, listen());
      expect(await catalogueOf(target)).toEqual(before);
    });
  },
  { template: migrate },
);
