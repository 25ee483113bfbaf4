import { setTimeout as wait } from "node:timers/promises";
import { randomUUID } from "node:crypto";
import { expect, onTestFinished, test } from "vitest";
import { openCluster } from "../../src/cluster/client.ts";
import { limitConnections, type PostgresPool } from "../../src/database/postgres.ts";
import { Batches } from "../../src/pinning/batches.ts";
import { pinned, putOff, sent, writeOutcomes } from "../../src/pinning/outcomes.ts";
import { claimWork } from "../../src/pinning/queue.ts";
import { startPinWorker } from "../../src/pinning/worker.ts";
import { cidOf } from "../support/cids.ts";
import { startClusterDouble } from "../support/cluster-double.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { accept, factsOf, standingOf, WHATEVER_IS_DUE, workLeft } from "../support/pin-requests.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const PINS = 300;
const CONNECTIONS = 3;
const CALLS = 4;

/** Counts statements, and how many of them and of transactions go on at once. */
function counted(pool: PostgresPool) {
  const counts = { statements: 0, open: 0, most: 0, unfinished: 0 };
  const during = async <Result>(work: Promise<Result>): Promise<Result> => {
    counts.open += 1;
    counts.most = Math.max(counts.most, counts.open);
    try {
      return await work;
    } finally {
      counts.open -= 1;
    }
  };
  const watched: PostgresPool = {
    ...pool,
    query: (...statement) => {
      counts.statements += 1;
      const [, [written] = []] = statement;
      // Outcomes of requests that were sent, and must be looked at in another turn.
      if (typeof written === "string")
        counts.unfinished += written.match(/"sent":"now","sentMs":[\d.]+,"isPinned":false/g)?.length ?? 0;
      return during(pool.query(...statement));
    },
    transaction: (work) =>
      during(
        pool.transaction((database) =>
          work({
            query: (...statement) => {
              counts.statements += 1;
              return database.query(...statement);
            },
          }),
        ),
      ),
  };
  return { watched, counts };
}

describeOnPostgres(
  "what the queue does together",
  (postgres) => {
    test("300 pins of one account need few statements, connections and calls at once, and no second turn", async () => {
      const target = await postgres.createDatabase();
      const cluster = await startClusterDouble({});
      onTestFinished(() => cluster.stop());
      let [calls, mostCalls] = [0, 0];
      cluster.gate = async () => {
        calls += 1;
        mostCalls = Math.max(mostCalls, calls);
        await wait(5);
        calls -= 1;
        return "apply";
      };
      const pool = poolOf(target);
      const ids: string[] = [];
      for (let n = 0; n < PINS; n++) ids.push(await accept(pool, { account: "a", cid: cidOf(`many ${n}`) }));
      const { watched, counts } = counted(pool);
      const stop = new AbortController();
      const worker = startPinWorker({
        pool: limitConnections(watched, CONNECTIONS),
        openCluster: () => openCluster({ endpoint: cluster.url, connections: CALLS, signal: stop.signal }),
        dagSize: async () => 1,
        mayPin: async () => true,
        heldBack: async () => null,
        log: () => {},
        settings: { slots: 64, transactions: 1, deadlineMs: 3_600_000 },
        stop: stop.signal,
      });
      onTestFinished(async () => {
        stop.abort();
        await worker.stopped;
      });
      await expect.poll(() => workLeft(target), { timeout: 60_000 }).toBe(0);
      for (const id of ids) expect(await standingOf(target, id)).toBe("pinned");
      expect(counts.statements).toBeLessThan(5 * PINS);
      expect(counts.most).toBeLessThanOrEqual(CONNECTIONS);
      expect(mostCalls).toBeLessThanOrEqual(CALLS);
      // A few where the machine is slow.
      expect(counts.unfinished).toBeLessThan(PINS / 2);
    }, 90_000);

    test("an outcome whose claim is no longer ours changes nothing, and those beside it are written (H14)", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      const lost = await accept(pool, { account: "a", cid: cidOf("lost") });
      const kept = await accept(pool, { account: "b", cid: cidOf("kept") });
      const other = await accept(pool, { account: "c", cid: cidOf("other") });
      const { work } = await claimWork(pool, {
        ...WHATEVER_IS_DUE,
        phases: ["send"],
        claim: randomUUID(),
      });
      const of = (id: string) => {
        const found = work.find(({ requestid }) => requestid === id);
        if (found === undefined) throw new Error("it is claimed");
        return found;
      };
      await pool.query("UPDATE pin_work SET claim = gen_random_uuid() WHERE requestid = $1", [lost]);
      // Its first deadline was an hour, and began again once: the next one is not two.
      await pool.query(
        "UPDATE pin_work SET accepted_at = now() - interval '2 hours', deadline_at = now() WHERE requestid = $1",
        [kept],
      );
      const outcomes = [
        pinned(of(lost), 5),
        sent(of(kept), 0),
        putOff(of(other), { inMs: 0, error: "a \0 and a \ud800" }),
      ];
      await writeOutcomes(pool, outcomes, 3_600_000);
      const left = "SELECT round(extract(epoch FROM deadline_at - now()) / 60)::int AS minutes FROM pin_work";
      expect(await pool.query(`${left} WHERE requestid = $1`, [kept])).toEqual([{ minutes: 60 }]);
      expect(await standingOf(target, lost)).toBe("queued, send");
      expect(await standingOf(target, kept)).toBe("pinning, look");
      expect(await factsOf(target, kept)).toMatchObject({ info: {} });
      expect(
        await pool.query(
          "SELECT last_error AS error, claim IS NULL AS ended FROM pin_work WHERE requestid = $1",
          [other],
        ),
      ).toEqual([{ error: "a  and a \ufffd", ended: true }]);
    });

    test("an outcome that PostgreSQL refuses does not take those beside it with it", async () => {
      const target = await postgres.createDatabase();
      const pool = poolOf(target);
      for (const account of ["a", "b", "c"]) await accept(pool, { account, cid: cidOf(account) });
      const { work } = await claimWork(pool, { ...WHATEVER_IS_DUE, phases: ["send"], claim: randomUUID() });
      const outcomes = work.map((one, at) =>
        at === 1 ? putOff(one, { inMs: 0, attempts: 2 ** 40 }) : sent(one, 0),
      );
      await expect(writeOutcomes(pool, outcomes, 3_600_000)).rejects.toMatchObject({ code: "22003" });
      const standings = await Promise.all(work.map(({ requestid }) => standingOf(target, requestid)));
      expect(standings).toEqual(["pinning, look", "queued, send", "pinning, look"]);
    });

    test("a claim that takes long is followed by as long a pause, whatever comes", async () => {
      const target = await postgres.createDatabase();
      const cluster = await startClusterDouble({});
      onTestFinished(() => cluster.stop());
      const pool = poolOf(target);
      const pauses: number[] = [];
      let endedAt = Number.NaN;
      const slow: PostgresPool = {
        ...pool,
        query: async <Row extends Record<string, unknown>>(
          ...statement: Parameters<PostgresPool["query"]>
        ): Promise<readonly Row[]> => {
          const [text, [, , phases] = []] = statement;
          const isClaim = text.includes("WITH RECURSIVE accounts") && String(phases).includes("send");
          if (!isClaim) return pool.query<Row>(...statement);
          pauses.push(performance.now() - endedAt);
          await wait(60);
          const rows = await pool.query<Row>(...statement);
          endedAt = performance.now();
          return rows;
        },
      };
      const stop = new AbortController();
      const worker = startPinWorker({
        pool: slow,
        openCluster: () => openCluster({ endpoint: cluster.url, signal: stop.signal }),
        dagSize: async () => 1,
        mayPin: async () => true,
        heldBack: async () => null,
        log: () => {},
        settings: { slots: 8, deadlineMs: 3_600_000 },
        stop: stop.signal,
      });
      const waking = setInterval(() => worker.wake(), 1);
      onTestFinished(async () => {
        clearInterval(waking);
        stop.abort();
        await worker.stopped;
      });
      await expect.poll(() => pauses.length, { timeout: 30_000 }).toBeGreaterThan(8);
      expect(Math.min(...pauses.slice(1))).toBeGreaterThan(50);
    }, 60_000);

    test("one batch runs at a time, and each item gets its own result or the error of its batch", async () => {
      const sizes: number[] = [];
      const batches = new Batches<number, number>(
        async (items) => {
          sizes.push(items.length);
          await wait(1);
          if (items.includes(7)) throw new Error("seven");
          return items.map((item) => item * 2);
        },
        { most: 4, atOnce: 1 },
      );
      const results = await Promise.allSettled([1, 2, 3, 4, 5, 6, 7].map((item) => batches.add(item)));
      expect(sizes).toEqual([4, 3]);
      expect(results.map((one) => (one.status === "fulfilled" ? one.value : "failed"))).toEqual([
        2,
        4,
        6,
        8,
        "failed",
        "failed",
        "failed",
      ]);
    });
  },
  { template: migrate },
);
