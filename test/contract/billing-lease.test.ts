import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { type Lease, openLease } from "../../src/billing/lease.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { addAccounts, awayFromTheHour } from "../support/billing.ts";
import { startBilling } from "../support/billing-process.ts";
import { until } from "../support/migrations.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { inSession, sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const SILENT_MS = 1_500;

interface Tested extends Lease {
  readonly lines: string[];
}

/** The lease of a master in this process. `through` is where its session connects, if not directly. */
function leaseOf(target: PostgresTarget, holder: string, through: PostgresTarget = target): Tested {
  const lines: string[] = [];
  const lease = openLease({
    target: through,
    pool: poolOf(target),
    holder,
    log: (line) => void lines.push(line),
    silentAfterMs: SILENT_MS,
  });
  onTestFinished(() => lease.release());
  return { ...lease, lines };
}

async function leaseRow(target: PostgresTarget) {
  const [row] = await sql<{ generation: string; holder: string | null; pid: number | null }>(
    target,
    "SELECT generation, holder, pid FROM cron_lease",
  );
  return row;
}

/** The sessions that hold upstream's lock in this database. */
async function holders(target: PostgresTarget): Promise<number> {
  const rows = await sql(
    target,
    `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 815551001 AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
  );
  return rows.length;
}

/** How many accounts were charged, and how often the one that was charged most. */
async function charged(target: PostgresTarget): Promise<{ accounts: number; most: number }> {
  const [row] = await sql<{ accounts: number; most: number }>(
    target,
    `SELECT count(*)::int AS accounts, coalesce(max(charges), 0)::int AS most FROM (
       SELECT count(*) AS charges FROM credit_history GROUP BY user_id, reference_id) AS each`,
  );
  return row ?? { accounts: 0, most: 0 };
}

/** Accounts whose exact balance is not the one from before minus the fee, or whose REAL is not its rounding. */
async function wrongBalances(target: PostgresTarget): Promise<number> {
  const [row] = await sql<{ wrong: number }>(
    target,
    `SELECT count(*)::int AS wrong
     FROM account_usage u JOIN user_credits c ON c.user_id = u.account LEFT JOIN exact_credits e ON e.account = u.account
       JOIN (SELECT encode(sha256(n::text::bytea), 'hex') AS account, 100000 + n AS before FROM generate_series(1, 200000) AS n) AS b
         ON b.account = u.account
     WHERE e.balance IS DISTINCT FROM b.before - div((u.bytes - 524288000) * 3e18, 773094113280) * 1e-18
       OR c.balance_fula IS DISTINCT FROM e.balance::real`,
  );
  return row?.wrong ?? -1;
}

/** A proxy that keeps the server's answers back from `hold` on, for the connections that are open then. */
async function startHoldingProxy(target: PostgresTarget) {
  const open: { readonly client: Socket; readonly server: Socket }[] = [];
  const proxy = createServer((client) => {
    const server = connect(target.port, target.host);
    open.push({ client, server });
    client.pipe(server);
    server.pipe(client);
    for (const [one, other] of [
      [client, server],
      [server, client],
    ] as const) {
      one.on("error", () => other.destroy());
      one.on("close", () => other.destroy());
    }
  }).listen(0, "127.0.0.1");
  await once(proxy, "listening");
  onTestFinished(() => {
    proxy.close();
    for (const { client, server } of open) for (const socket of [client, server]) socket.destroy();
  });
  return {
    target: { ...target, port: (proxy.address() as { port: number }).port },
    hold() {
      for (const { client, server } of open) {
        server.unpipe(client);
        server.resume();
        // Nor does the client hear that the server has ended the session.
        server.removeAllListeners("close");
      }
    },
  };
}

describeOnPostgres(
  "the lease of the crons",
  (postgres) => {
    test("one leads, and the other stands by until the lease is given back", async () => {
      const target = await postgres.createDatabase();
      const [a, b] = [leaseOf(target, "a"), leaseOf(target, "b")];
      expect([await a.lookAgain(), await b.lookAgain(), await a.lookAgain()]).toEqual([true, false, true]);
      expect(await leaseRow(target)).toMatchObject({ generation: "1", holder: "a" });
      expect(a.lines).toEqual(["[leaderLease] acquired cron lease — this master runs the crons"]);
      expect(b.bank()).toBeNull();
      await a.release();
      expect(await leaseRow(target)).toMatchObject({ pid: null });
      expect(await b.lookAgain()).toBe(true);
      expect(await leaseRow(target)).toMatchObject({ generation: "2", holder: "b" });
      expect(await holders(target)).toBe(1);
    });

    test("what one cron asks is no part of the transaction of another", async () => {
      const target = await postgres.createDatabase();
      await sql(target, "CREATE TABLE written (n integer)");
      const lease = leaseOf(target, "a");
      await lease.lookAgain();
      const bank = lease.bank();
      let beside = "";
      let asked: Promise<unknown> = Promise.resolve();
      await bank?.transaction(async (database) => {
        await database.query("INSERT INTO written VALUES (1)");
        asked = bank.query("SELECT 1 / 0").catch((thrown: unknown) => (beside = String(thrown)));
      });
      await asked;
      expect(beside).toMatch(/division by zero/);
      expect(await sql(target, "SELECT n FROM written")).toEqual([{ n: 1 }]);
    });

    test("a transaction that PostgreSQL took back is an error, also if nobody threw the first one on", async () => {
      const target = await postgres.createDatabase();
      const lease = leaseOf(target, "a");
      await lease.lookAgain();
      for (const bank of [lease.bank(), poolOf(target)])
        await expect(
          bank?.transaction(async (database) => {
            await database.query("SELECT 1 / 0").catch(() => {});
          }),
        ).rejects.toThrow("took the transaction back");
    });

    test("H06: a transaction of an earlier generation writes nothing", async () => {
      const target = await postgres.createDatabase();
      const a = leaseOf(target, "a");
      await a.lookAgain();
      const bank = a.bank();
      await sql(target, "UPDATE cron_lease SET generation = generation + 1");
      const write = () => bank?.transaction((database) => database.query("CREATE TABLE written ()"));
      await expect(write()).rejects.toThrow("another master has taken the lease");
      expect(await sql(target, "SELECT to_regclass('written') AS written")).toEqual([{ written: null }]);
      expect(a.bank()).toBeNull();
      await until("the lock is free", async () => (await holders(target)) === 0);
    });

    test("H06: the heartbeat finds out that its session is gone; after the end of all sessions, exactly one leads", async () => {
      const target = await postgres.createDatabase();
      const leases = [leaseOf(target, "a"), leaseOf(target, "b")];
      for (const lease of leases) await lease.lookAgain();
      for (let round = 0; round < 3; round += 1) {
        await sql(
          target,
          "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        await until("exactly one leads", async () => {
          const lead = [];
          for (const lease of leases) lead.push(await lease.lookAgain());
          return lead.filter(Boolean).length === 1;
        });
        expect(await holders(target)).toBe(1);
      }
    });

    test(
      "H06: an answer that comes too late ends the session that got the lock",
      { timeout: 60_000 },
      async () => {
        const target = await postgres.createDatabase();
        const proxy = await startHoldingProxy(target);
        const [a, b] = [leaseOf(target, "a", proxy.target), leaseOf(target, "b")];
        await inSession(target, async (client) => {
          await client.query("SELECT pg_advisory_lock(815551001)");
          expect(await a.lookAgain()).toBe(false);
        });
        await until("the lock is free", async () => (await holders(target)) === 0);
        proxy.hold();
        expect(await a.lookAgain()).toBe(false);
        const lead = [];
        for (const lease of [b, a, b, a]) lead.push(await lease.lookAgain());
        expect(lead).toEqual([true, false, true, false]);
        expect(await holders(target)).toBe(1);
      },
    );

    test("H06: a holder that does not know that its session ended finds out by its heartbeat", async () => {
      const target = await postgres.createDatabase();
      const proxy = await startHoldingProxy(target);
      const a = leaseOf(target, "a", proxy.target);
      expect(await a.lookAgain()).toBe(true);
      proxy.hold();
      await sql(target, "SELECT pg_terminate_backend(pid, 5000) FROM cron_lease");
      expect(await a.lookAgain()).toBe(false);
      expect(a.bank()).toBeNull();
      expect(await a.lookAgain()).toBe(true);
      expect(await leaseRow(target)).toMatchObject({ generation: "2" });
    });

    test("a lock that was taken is not kept if the rest fails", async () => {
      const target = await postgres.createDatabase();
      const [a, b] = [leaseOf(target, "a"), leaseOf(target, "b")];
      await sql(target, "ALTER TABLE cron_lease ADD CHECK (generation > 1)");
      expect([await a.lookAgain(), await a.lookAgain()]).toEqual([false, false]);
      await until("the lock is free", async () => (await holders(target)) === 0);
      expect(a.lines).toHaveLength(1);
      await sql(target, "ALTER TABLE cron_lease DROP CONSTRAINT cron_lease_generation_check");
      expect(await b.lookAgain()).toBe(true);
    });

    test("H07: a leader that is busy for long is not ended while it beats; a silent one is", async () => {
      const target = await postgres.createDatabase();
      const [a, b] = [leaseOf(target, "a"), leaseOf(target, "b")];
      await a.lookAgain();
      let isBusy = true;
      const work = a
        .bank()
        ?.transaction((database) => database.query("SELECT pg_sleep(3)"))
        .finally(() => {
          isBusy = false;
        });
      await until("the work is done", async () => {
        expect([await a.lookAgain(), await b.lookAgain()]).toEqual([true, false]);
        return !isBusy;
      });
      await work;
      expect(await leaseRow(target)).toMatchObject({ generation: "1" });
      // From here on it beats no more.
      await until("the other one leads", () => b.lookAgain());
      expect(await leaseRow(target)).toMatchObject({ generation: "2", holder: "b" });
      expect(b.lines.join("\n")).toMatch(/the lease holder a was silent for \d+ s: its session was ended/);
      expect(await a.lookAgain()).toBe(false);
    });

    test("a master that can't ask the database knows that it does not know who leads", async () => {
      const target = await postgres.createDatabase();
      const away = leaseOf({ ...target, database: "gone" }, "a");
      expect(away.fault()).toBeNull();
      expect(await away.lookAgain()).toBe(false);
      expect(away.fault()).toMatch(/gone/);
      const here = leaseOf(target, "b");
      await here.lookAgain();
      expect(here.fault()).toBeNull();
    });

    test("upstream's image holds the lock without a row, and is left alone", async () => {
      const target = await postgres.createDatabase();
      const a = leaseOf(target, "a");
      await a.lookAgain();
      await a.release();
      await sql(
        target,
        "UPDATE cron_lease SET heartbeat_at = now() - interval '1 day', pid = 1, backend_start = now()",
      );
      await inSession(target, async (client) => {
        await client.query("SELECT pg_try_advisory_lock(815551001)");
        for (let n = 0; n < 3; n += 1) expect(await a.lookAgain()).toBe(false);
        await client.query("SELECT 1");
      });
      expect(await leaseRow(target)).toMatchObject({ generation: "1" });
    });
  },
  { template: migrate },
);

describeOnPostgres(
  "masters in processes of their own",
  (postgres) => {
    // DEDUCTION_ACCOUNTS=100000 takes some minutes on two cores.
    const COUNT = Number(process.env["DEDUCTION_ACCOUNTS"] ?? 3_000);
    const scaled = { timeout: 60_000 + 3 * COUNT };

    async function start() {
      await awayFromTheHour();
      const target = await postgres.createDatabase();
      await addAccounts(target, COUNT);
      const leader = await startBilling(target, { master: "a", batchSize: Math.ceil(COUNT / 150) });
      await until("a leads", async () => leader.output().includes("acquired cron lease"));
      const standby = await startBilling(target, { master: "b" });
      await until("b stands by", async () =>
        standby.output().includes("standby (lease held by another master)"),
      );
      return { target, leader, standby };
    }

    /** A run is half done. */
    async function halfWay(target: PostgresTarget): Promise<void> {
      await until("some are charged", async () => (await charged(target)).accounts > 100);
      expect((await charged(target)).accounts).toBeLessThan(COUNT);
    }

    async function allChargedOnce(target: PostgresTarget): Promise<void> {
      await until("all are charged", async () => (await charged(target)).accounts >= COUNT, 40_000 + COUNT);
      expect(await charged(target)).toEqual({ accounts: COUNT, most: 1 });
      expect(await wrongBalances(target)).toBe(0);
    }

    test(
      "kill -9 of the leader half-way: the standby takes over and charges the others",
      scaled,
      async () => {
        const { target, leader, standby } = await start();
        await halfWay(target);
        leader.signal("SIGKILL");
        expect(await leader.ended).toBe("SIGKILL");
        await allChargedOnce(target);
        expect(standby.output()).toContain("acquired cron lease");
        expect(await leaseRow(target)).toMatchObject({ generation: "2", holder: "b" });
      },
    );

    test(
      "H07: a leader that is stopped loses the lease after its time, and writes nothing when it goes on",
      scaled,
      async () => {
        const { target, leader, standby } = await start();
        await halfWay(target);
        leader.signal("SIGSTOP");
        await allChargedOnce(target);
        expect(standby.output()).toMatch(/the lease holder a was silent for \d+ s: its session was ended/);
        const before = leader.output().length;
        leader.signal("SIGCONT");
        await until("the first one stands by", async () =>
          leader.output().slice(before).includes("standby (lease held by another master)"),
        );
        expect(leader.output().slice(before)).toContain("lost the cron lease");
        expect(await charged(target)).toEqual({ accounts: COUNT, most: 1 });
        expect(await wrongBalances(target)).toBe(0);
        expect(await leaseRow(target)).toMatchObject({ generation: "2", holder: "b" });
      },
    );

    test(
      "H06: the end of the lock's session half-way: that master writes no more, and the run is finished",
      scaled,
      async () => {
        const { target, leader } = await start();
        await halfWay(target);
        await sql(target, "SELECT pg_terminate_backend(pid) FROM cron_lease");
        await allChargedOnce(target);
        expect(leader.output()).toContain("lost the cron lease");
        expect(Number((await leaseRow(target))?.generation)).toBeGreaterThan(1);
        expect(await holders(target)).toBe(1);
      },
    );

    test("SIGTERM gives the lease back at once", scaled, async () => {
      const { target, leader, standby } = await start();
      leader.signal("SIGTERM");
      expect(await leader.ended).toBe(0);
      await until("b leads", async () => standby.output().includes("acquired cron lease"));
      expect(standby.output()).not.toContain("was silent");
      await allChargedOnce(target);
    });

    const many = Number(process.env["DEDUCTION_ACCOUNTS"] ?? 10_000);

    test(
      `8 masters at once over ${many} accounts, one killed half-way: each is charged once`,
      { timeout: 600_000 },
      async () => {
        await awayFromTheHour();
        const target = await postgres.createDatabase();
        await addAccounts(target, many);
        const started = performance.now();
        const masters = await Promise.all(
          Array.from({ length: 8 }, (_, n) =>
            startBilling(target, { master: `m${n}`, once: true, batchSize: many / 50 }),
          ),
        );
        await until("a part is charged", async () => (await charged(target)).accounts > many / 10, 60_000);
        masters[0]?.signal("SIGKILL");
        const ended = await Promise.all(masters.map((master) => master.ended));
        expect(ended).toEqual(["SIGKILL", 0, 0, 0, 0, 0, 0, 0]);
        expect(await charged(target)).toEqual({ accounts: many, most: 1 });
        expect(await wrongBalances(target)).toBe(0);
        console.log(`${many} accounts by 8 masters: ${Math.round(performance.now() - started)} ms`);
      },
    );
  },
  { template: migrate },
);
