import { expect, onTestFinished, test } from "vitest";
import { openPostgresPool } from "../../src/database/postgres.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { cidOf } from "../support/cids.ts";
import { type ClusterDouble, startClusterDouble } from "../support/cluster-double.ts";
import { migrate } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { freePort } from "../support/free-port.ts";
import { sql } from "../support/postgres-server.ts";
import { Postmaster } from "../support/postmaster.ts";
import { type ServeProcess, startServeProcess } from "../support/serve-process.ts";
import { deferred } from "./serving.ts";
import { type Answered, createUser, request, type User } from "./pins-api.ts";

/** A statement of a request may take 15 s, and getting a connection 2 s. */
const LONGEST_MS = 20_000;
const ROLE = { user: "service", password: "of-the-service" };

describeOnPostgres(
  "H18: the pinning API, as a process, and faults of its database",
  (postgres) => {
    test("its sessions are ended in every state, again and again", async () => {
      const { api, ann, target } = await start();
      const load = startLoad(ann);
      for (let round = 0; round < 25; round += 1) {
        const done = load.count();
        await endSessions(target);
        await expect.poll(() => load.count(), { timeout: LONGEST_MS }).toBeGreaterThan(done + 3);
      }
      const seen = await load.stop();
      expectInForm(seen);
      await backWithin(api, ann, performance.now(), "after its sessions were ended");
      await expectAlive(api, target);
    }, 120_000);

    test("PostgreSQL is killed, and is away for some time", async () => {
      const { api, ann, target } = await start();
      const server = await Postmaster.of(target);
      const load = startLoad(ann);
      await expect.poll(() => load.count()).toBeGreaterThan(5);
      await server.end("SIGKILL");
      const refused = load.refused();
      await expect.poll(() => load.refused(), { timeout: LONGEST_MS }).toBeGreaterThan(refused + 20);
      await expectHealth(api, 503, /ECONNREFUSED|terminated|not yet accepting/);
      await server.start();
      await backWithin(api, ann, performance.now(), "after a kill -9 of PostgreSQL");
      expectInForm(await load.stop());
      await expectAlive(api, target);
    }, 120_000);

    test("PostgreSQL is away for a whole minute, and everything is right again in 5 s", async () => {
      const { api, ann, target } = await start();
      const server = await Postmaster.of(target);
      const load = startLoad(ann);
      await expect.poll(() => load.count()).toBeGreaterThan(5);
      const accepted = await ann.pin(cidOf("before the minute"));
      await server.end("SIGINT");
      const gone = performance.now();
      let refused = 0;
      await expect
        .poll(
          async () => {
            // It refuses all the time, and says why all the time: nothing hangs, and no pool is used up.
            await expectHealth(api, 503, /ECONNREFUSED|terminated/);
            expect(load.refused()).toBeGreaterThan(refused);
            refused = load.refused();
            return performance.now() - gone;
          },
          { timeout: 120_000, interval: 2_000 },
        )
        .toBeGreaterThan(60_000);
      await server.start();
      await backWithin(api, ann, performance.now(), "after a minute without PostgreSQL");
      expectInForm(await load.stop());
      await expect
        .poll(async () => (await ann.get(`/${accepted}`)).body["status"], { timeout: LONGEST_MS })
        .toBe("pinned");
      await expectAlive(api, target);
    }, 240_000);

    test("57P03: PostgreSQL is there, and accepts no session yet", async () => {
      const { api, ann, target } = await start();
      const server = await Postmaster.of(target);
      await server.end("SIGINT");
      await server.start("closed");
      const says = /starting up|not accepting connections|not yet accepting/;
      await expect.poll(async () => (await healthOf(api)).text, { timeout: LONGEST_MS }).toMatch(says);
      const seen = [await ann.get(""), await ann.post({ cid: cidOf("not now") }), await ann.delete("x")];
      expect(seen.map(({ status }) => status)).toEqual([503, 503, 503]);
      expectInForm(seen);
      await server.end("SIGKILL");
      await server.start();
      await backWithin(api, ann, performance.now(), "after 57P03");
      await expectAlive(api, target);
    }, 120_000);

    test("a database that only reads: what writes is refused for now, and health says why", async () => {
      const { api, ann, target } = await start();
      const id = await ann.pin(cidOf("before"));
      const server = await Postmaster.of(target);
      await server.end("SIGINT");
      await server.start("read-only");
      await expect.poll(async () => (await ann.get("?status=queued,pinning,pinned")).status).toBe(200);
      const seen = [await ann.post({ cid: cidOf("not now") }), await ann.delete(id)];
      expect(seen.map(({ status }) => status)).toEqual([503, 503]);
      expectInForm(seen);
      await expectHealth(api, 503, /read-only/);
      await server.end("SIGKILL");
      await server.start();
      await backWithin(api, ann, performance.now(), "after it was read-only");
      await expectAlive(api, target);
    }, 120_000);

    test("53300: no session is left", async () => {
      const { api, ann, target } = await start();
      await ann.get("");
      await sql(postgres.target, `ALTER DATABASE ${target.database} CONNECTION LIMIT 0`);
      await endSessions(target);
      const says = /too many connections/;
      await expect.poll(async () => (await healthOf(api)).text, { timeout: LONGEST_MS }).toMatch(says);
      await expectHealth(api, 503, says);
      const seen = [await ann.get(""), await ann.post({ cid: cidOf("not now") }), await ann.delete("x")];
      expect(seen.map(({ status }) => status)).toEqual([503, 503, 503]);
      expectInForm(seen);
      await sql(postgres.target, `ALTER DATABASE ${target.database} CONNECTION LIMIT -1`);
      await backWithin(api, ann, performance.now(), "after 53300");
      await expectAlive(api, target);
    }, 120_000);

    test("1,000 failing transactions leave no session behind", async () => {
      const target = await postgres.createDatabase();
      const limits = { maxConnections: 5, idleTimeoutMs: 30_000, connectTimeoutMs: 100_000 };
      const pool = openPostgresPool({ ...target, ...limits }, { applicationName: "failing", log: () => {} });
      onTestFinished(() => pool.close());
      const fails: readonly ((at: number) => Promise<unknown>)[] = [
        () => pool.transaction((database) => database.query("SELECT 1 / 0")),
        () => pool.transaction(() => Promise.reject(new Error("of the work"))),
        () => pool.transaction((database) => database.query("SELECT pg_terminate_backend(pg_backend_pid())")),
        () => pool.query("SELECT 1 / 0"),
      ];
      const tries = Array.from({ length: 1_000 }, (_, at) => fails[at % fails.length]!(at));
      const ended = await Promise.allSettled(tries);
      expect(ended.filter(({ status }) => status === "fulfilled")).toEqual([]);
      const sessions = async () =>
        sql<{ state: string; count: number }>(
          target,
          `SELECT state, count(*)::int AS count FROM pg_stat_activity
           WHERE application_name = 'failing' AND datname = current_database() GROUP BY state`,
        );
      // All of the pool's connections can be used at once: none is lost.
      const isOver = deferred<void>();
      const together = Array.from({ length: 5 }, () => pool.transaction(() => isOver.promise));
      await expect
        .poll(sessions, { timeout: LONGEST_MS })
        .toEqual([{ state: "idle in transaction", count: 5 }]);
      isOver.resolve(undefined);
      await Promise.all(together);
      await expect.poll(sessions, { timeout: LONGEST_MS }).toEqual([{ state: "idle", count: 5 }]);
    }, 120_000);

    /** A service with a user. It is no superuser, whom no limit of sessions would stop. */
    async function start() {
      const target = await postgres.createDatabase();
      const role = `CREATE ROLE ${ROLE.user} LOGIN PASSWORD '${ROLE.password}'`;
      await sql(target, `DO $$ BEGIN ${role}; EXCEPTION WHEN duplicate_object THEN NULL; END $$`);
      for (const what of ["TABLES", "SEQUENCES", "FUNCTIONS"])
        await sql(target, `GRANT ALL ON ALL ${what} IN SCHEMA public TO ${ROLE.user}`);
      const cluster = await double();
      const ports = [await freePort(), await freePort(), await freePort()] as const;
      const api = await startServeProcess({ ...target, ...ROLE }, { ports, cluster: cluster.url });
      const ann = await createUser(target, api, "ann", 1_000_000);
      await expect.poll(async () => (await healthOf(api)).status, { timeout: LONGEST_MS }).toBe(200);
      return { api, ann, target };
    }
  },
  { template: migrate },
);

async function double(): Promise<ClusterDouble> {
  const cluster = await startClusterDouble({});
  onTestFinished(() => cluster.stop());
  return cluster;
}

/** Ends the service's sessions, whatever they do. */
function endSessions(target: PostgresTarget): Promise<unknown> {
  return sql(
    target,
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND datname = current_database()",
    [ROLE.user],
  );
}

function healthOf(api: ServeProcess): Promise<Answered> {
  return request(`${api.url}/health`);
}

async function expectHealth(api: ServeProcess, status: number, says: RegExp): Promise<void> {
  const answered = await healthOf(api);
  expect(answered).toMatchObject({ status, body: { checks: { postgres: { ok: false } } } });
  expect(answered.text).toMatch(says);
}

/** Requests of several clients without a pause, until they are stopped. */
function startLoad(user: User) {
  const seen: Answered[] = [];
  const failures: unknown[] = [];
  const run = { isOver: false };
  let next = 0;
  const client = async (): Promise<void> => {
    while (!run.isOver) {
      const began = performance.now();
      next += 1;
      const answered = next % 3 === 0 ? await user.post({ cid: cidOf(`load ${next}`) }) : await user.get("");
      expect(performance.now() - began).toBeLessThan(LONGEST_MS);
      seen.push(answered);
    }
  };
  const clients = Promise.all([client(), client(), client(), client()]);
  // `stop` awaits it. Until then a failure must not end the process of the test.
  clients.catch((thrown: unknown) => void failures.push(thrown));
  return {
    count() {
      if (failures.length > 0) throw failures[0];
      return seen.length;
    },
    refused: () => seen.filter(({ status }) => status === 503).length,
    async stop(): Promise<readonly Answered[]> {
      run.isOver = true;
      await clients;
      return seen;
    },
  };
}

/** Every answer is right, or 503 in the specification's form, with the time after which to try again. */
function expectInForm(seen: readonly Answered[]): void {
  for (const { status, body, headers } of seen) {
    if (status === 200 || status === 202) continue;
    expect({ status, body, retry: headers.get("retry-after") }).toMatchObject({
      status: 503,
      body: { error: { reason: "SERVICE_UNAVAILABLE", details: expect.any(String) as string } },
      retry: "5",
    });
  }
}

/** Prints how long it took until health and requests are right again, which must be within what is promised. */
async function backWithin(api: ServeProcess, user: User, sinceMs: number, when: string): Promise<void> {
  const works = async () => {
    const [health, listed] = [await healthOf(api), await user.get("")];
    const added = await user.post({ cid: cidOf(`again ${sinceMs}`) });
    return [health.status, listed.status, added.status];
  };
  await expect.poll(works, { timeout: 30_000, interval: 50 }).toEqual([200, 200, 202]);
  const tookMs = performance.now() - sinceMs;
  console.log(`H18: works again ${Math.round(tookMs)} ms ${when}`);
}

/** The same process, with no error that nobody handled, and with no more sessions than its pool may have. */
async function expectAlive(api: ServeProcess, target: PostgresTarget): Promise<void> {
  expect(() => process.kill(api.pid, 0)).not.toThrow();
  expect(api.output()).not.toMatch(/uncaught|unhandled|Error:|^\s+at /im);
  const [row] = await sql<{ count: number; stuck: number }>(
    target,
    `SELECT count(*)::int AS count, (count(*) FILTER (WHERE state LIKE 'idle in transaction%' AND state_change < now() - interval '5 s'))::int AS stuck
     FROM pg_stat_activity WHERE usename = $1 AND datname = current_database()`,
    [ROLE.user],
  );
  expect(row?.count).toBeLessThanOrEqual(25);
  expect(row?.stuck).toBe(0);
  api.signal("SIGTERM");
  expect(await api.ended).toBe(0);
}
