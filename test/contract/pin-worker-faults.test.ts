import { readFile } from "node:fs/promises";
import { expect, onTestFinished, test } from "vitest";
import { cidOf } from "../support/cids.ts";
import { type ClusterDouble, startClusterDouble } from "../support/cluster-double.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { accept, remove, standingOf, workLeft, workOn } from "../support/pin-requests.ts";
import { startWorkerProcess, type WorkerProcess } from "../support/pin-worker-process.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";
import { deferred } from "../services/serving.ts";

async function double(): Promise<ClusterDouble> {
  const started = await startClusterDouble({});
  onTestFinished(() => started.stop());
  return started;
}

/** Holds the first call of a kind until it is decided; later calls pass. */
function holdFirst(cluster: ClusterDouble, method: string) {
  const decision = deferred<"apply" | "drop">();
  const arrived = deferred<void>();
  let isFirst = true;
  cluster.gate = (called) => {
    if (called !== method || !isFirst) return Promise.resolve("apply");
    isFirst = false;
    arrived.resolve();
    return decision.promise;
  };
  return { arrived: arrived.promise, decide: decision.resolve };
}

/** The state letter of a process in /proc: T is stopped. */
async function stateOf({ pid }: WorkerProcess): Promise<string> {
  return (await readFile(`/proc/${pid}/stat`, "utf8")).replace(/^.*\) /s, "").charAt(0);
}

function postsOf(cluster: ClusterDouble, cid: string): number {
  return cluster.requests.filter((request) => request === `POST /pins/${cid}`).length;
}

const SLOW = { timeout: 30_000 };

describeOnPostgres(
  "a worker of pin requests that something happens to",
  (postgres) => {
    test.each(["drop", "apply"] as const)(
      "stopped in the middle of a send, it writes nothing when it comes back; its call: %s (H14)",
      async (late) => {
        const target = await postgres.createDatabase();
        const [cluster, pool] = [await double(), poolOf(target)];
        const cid = cidOf("stalled");
        const held = holdFirst(cluster, "POST");
        const id = await accept(pool, { account: "u", cid });
        const a = await startWorkerProcess(target, cluster.url);
        await held.arrived;
        a.signal("SIGSTOP");
        await expect.poll(() => stateOf(a)).toBe("T");
        const [{ claim } = { claim: "" }] = await sql<{ claim: string }>(
          target,
          "SELECT claim FROM pin_work",
        );

        const b = workOn(target, cluster);
        await expect.poll(() => standingOf(target, id), SLOW).toBe("pinned");
        expect(postsOf(cluster, cid)).toBe(2);
        await remove(pool, id);
        await expect.poll(() => workLeft(target), SLOW).toBe(0);
        expect(cluster.pins.size).toBe(0);
        await b.stop();

        held.decide(late);
        a.signal("SIGCONT");
        // Its transaction was ended by PostgreSQL: it notices that, and asks for another look at what it cannot know.
        await expect.poll(() => a.output(), SLOW).toContain("pin queue: ");
        await expect.poll(() => workLeft(target), SLOW).toBe(0);
        await expect.poll(() => cluster.pins.size, SLOW).toBe(0);
        expect(await standingOf(target, id)).toBe("deleted");
        expect(claim).not.toBe("");
      },
      60_000,
    );

    test("a call that lasts many leases is made once, as long as the worker lives", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      const cid = cidOf("slow");
      const held = holdFirst(cluster, "POST");
      const id = await accept(pool, { account: "u", cid });
      // Longer than this process may have to wait for the processor: a claim that ended is another's.
      for (let masters = 0; masters < 2; masters++)
        workOn(target, cluster, { settings: { leaseMs: 2_000 }, requestTimeoutMs: 30_000 });
      await held.arrived;
      const [begun] = await sql<{ now: string }>(target, "SELECT now()::text AS now");
      await expect
        .poll(
          async () =>
            (
              await sql(
                target,
                "SELECT FROM pin_work WHERE claimed_until > $1::timestamptz + interval '9 seconds'",
                [begun?.now],
              )
            ).length,
          SLOW,
        )
        .toBe(1);
      expect(postsOf(cluster, cid)).toBe(1);
      held.decide("apply");
      await expect.poll(() => standingOf(target, id), SLOW).toBe("pinned");
      expect(postsOf(cluster, cid)).toBe(1);
    }, 60_000);

    test("one call that hangs does not hold up what came with it", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      const ids = new Map<string, string>();
      for (let at = 0; at < 8; at++) {
        const cid = cidOf(`with it ${at}`);
        ids.set(cid, await accept(pool, { account: `u${at % 2}`, cid }));
      }
      const decision = deferred<"apply">();
      let hanging = "";
      cluster.gate = (method, cid) => {
        if (method !== "POST" || (hanging !== "" && hanging !== cid)) return Promise.resolve("apply");
        hanging = cid;
        return decision.promise;
      };
      workOn(target, cluster, { requestTimeoutMs: 60_000 });
      await expect.poll(() => hanging, SLOW).not.toBe("");
      const others = [...ids].filter(([cid]) => cid !== hanging);
      for (const [, id] of others) await expect.poll(() => standingOf(target, id), SLOW).toMatch(/^pinned/);
      expect(await standingOf(target, ids.get(hanging) ?? "")).toBe("queued, send");
      decision.resolve("apply");
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      for (const cid of ids.keys()) expect(postsOf(cluster, cid)).toBe(1);
    }, 90_000);

    test("while a content is unpinned, another master does not send it", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      const cid = cidOf("unpinned and sent");
      const id = await accept(pool, { account: "u", cid });
      for (let masters = 0; masters < 2; masters++) workOn(target, cluster);
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      const held = holdFirst(cluster, "DELETE");
      await remove(pool, id);
      await held.arrived;
      const next = await accept(pool, { account: "v", cid });
      // Its turn came, and it was put off.
      await expect
        .poll(
          () =>
            sql(
              target,
              "SELECT due_at > accepted_at + interval '1 second' AS late FROM pin_work WHERE requestid = $1",
              [next],
            ),
          SLOW,
        )
        .toEqual([{ late: true }]);
      expect(postsOf(cluster, cid)).toBe(1);
      held.decide("apply");
      await expect.poll(() => standingOf(target, next), SLOW).toBe("pinned");
      expect(cluster.pins.has(cid)).toBe(true);
    }, 60_000);

    test("killed between the claim and the answer: another worker goes on", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      const ids = await Promise.all(
        Array.from({ length: 40 }, (_, at) => accept(pool, { account: `u${at % 7}`, cid: cidOf(`k${at}`) })),
      );
      const held = holdFirst(cluster, "POST");
      const a = await startWorkerProcess(target, cluster.url);
      await held.arrived;
      a.signal("SIGKILL");
      expect(await a.ended).toBe("SIGKILL");
      expect((await sql(target, "SELECT FROM pin_work WHERE claim IS NOT NULL")).length).toBeGreaterThan(0);
      held.decide("drop");
      const b = await startWorkerProcess(target, cluster.url);
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      for (const id of ids) expect(await standingOf(target, id)).toBe("pinned");
      expect(cluster.pins.size).toBe(40);
      b.signal("SIGTERM");
      expect(await b.ended).toBe(0);
      expect(b.output()).toContain("ended");
    }, 60_000);

    test("a graceful stop in the middle of a send gives the work back at once, for after the late effect of that call", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      await accept(pool, { account: "u", cid: cidOf("given back") });
      const held = holdFirst(cluster, "POST");
      const worker = workOn(target, cluster, { settings: { leaseMs: 60_000 } });
      await held.arrived;
      const [begun] = await sql<{ now: string }>(target, "SELECT now()::text AS now");
      await worker.stop();
      expect(
        await sql(
          target,
          "SELECT claim, due_at BETWEEN $1::timestamptz + interval '2 s' AND now() + interval '2 s' AS due FROM pin_work",
          [begun?.now],
        ),
      ).toEqual([{ claim: null, due: true }]);
      held.decide("drop");
    });

    test("the cluster is away for a while: nothing is lost, and it is said once", async () => {
      const target = await postgres.createDatabase();
      const [first, pool] = [await startClusterDouble({}), poolOf(target)];
      const port = Number(new URL(first.url).port);
      await first.stop();
      const worker = workOn(target, { url: first.url });
      const ids = await Promise.all(
        Array.from({ length: 60 }, (_, at) =>
          accept(pool, { account: `u${at % 3}`, cid: cidOf(`away ${at}`) }),
        ),
      );
      await expect.poll(() => worker.state().fault, SLOW).toMatch(/^cluster: The cluster at/);
      // Health and the log show it: it names no content.
      expect(worker.state().fault).toMatch(/did not answer \(\w+ \/[a-z]+\/:cid\)/);
      const cluster = await startClusterDouble({ port });
      onTestFinished(() => cluster.stop());
      await expect.poll(() => workLeft(target), SLOW).toBe(0);
      for (const id of ids) expect(await standingOf(target, id)).toBe("pinned");
      expect(worker.lines).toEqual([
        expect.stringMatching(/^pin queue: cluster: The cluster at .* did not answer/),
        "pin queue: the cluster responds again",
      ]);
      expect(worker.state()).toMatchObject({ fault: null, inProgress: 0 });
    }, 60_000);

    test("every connection is ended again and again: the process stays, and nothing is lost (H18)", async () => {
      const target = await postgres.createDatabase();
      const [cluster, pool] = [await double(), poolOf(target)];
      const worker = await startWorkerProcess(target, cluster.url);
      const ids: string[] = [];
      for (let round = 0; round < 6; round++) {
        for (let at = 0; at < 10; at++)
          ids.push(await accept(pool, { account: `u${at % 3}`, cid: cidOf(`cut ${round} ${at}`) }));
        await sql(
          target,
          "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'a pin worker' AND datname = current_database()",
        );
      }
      await expect.poll(() => workLeft(target), { ...SLOW, timeout: 80_000 }).toBe(0);
      for (const id of ids) expect(await standingOf(target, id)).toBe("pinned");
      expect(cluster.pins.size).toBe(60);
      expect(worker.output()).not.toMatch(/uncaught|unhandled|Error:/i);
      worker.signal("SIGTERM");
      expect(await worker.ended).toBe(0);
    }, 120_000);
  },
  { template: migrate },
);
