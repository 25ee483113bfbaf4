import { describe, expect, onTestFinished, test } from "vitest";
import { catchUp, runDeduction } from "../../src/billing/deduction.ts";
import { openLease } from "../../src/billing/lease.ts";
import { scanChains } from "../../src/billing/scan.ts";
import { tariffOf } from "../../src/billing/fee.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import {
  addAccounts,
  addPins,
  awayFromTheHour,
  charges,
  GIB,
  PRICING,
  runOn,
  setBalance,
} from "../support/billing.ts";
import { startBilling } from "../support/billing-process.ts";
import {
  addChain,
  balances,
  CONFIRMATIONS,
  cursorOf,
  linkWallet,
  ONE,
  scanOf,
  walletOf,
} from "../support/deposits.ts";
import { startFakeChain, VAULT } from "../support/fake-chain.ts";
import { until } from "../support/migrations.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { Postmaster } from "../support/postmaster.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const HOUR = "date_trunc('hour', now(), 'UTC')";

describeOnPostgres(
  "the billing of several masters",
  (postgres) => {
    describe("H05: an outage of three hours", () => {
      const SETS = 60;
      /** Hours before the present one, for each account of a set. */
      const EXPECTED = ["u1 2", "u1 1", "u1 0", "u2 0", "u3 2", "u3 1", "u4 0", "u5 2"];

      /** In each set: over the tier all the time; stored just now; deleted just now; suspended; with a balance for one hour. */
      async function outage(): Promise<PostgresTarget> {
        await awayFromTheHour();
        const target = await postgres.createDatabase();
        await sql(
          target,
          `INSERT INTO user_credits (user_id, balance_fula, is_suspended, suspended_at)
           SELECT format('%s-%s', name, n), CASE name WHEN 'u5' THEN 0.01 ELSE 100 END, (name = 'u4')::int,
             CASE name WHEN 'u4' THEN ${HOUR} - interval '4 hours' END
           FROM unnest(ARRAY['u1', 'u2', 'u3', 'u4', 'u5']) AS name, generate_series(1, ${SETS}) AS n`,
        );
        await sql(
          target,
          `INSERT INTO pins (requestid, user_id, cid, status, size, created_at, updated_at)
           SELECT gen_random_uuid(), user_id, 'c', CASE WHEN user_id LIKE 'u3-%' THEN 'deleted' ELSE 'pinned' END,
             CASE WHEN user_id LIKE 'u2-%' THEN ${1024 * GIB} ELSE ${10 * GIB} END,
             CASE WHEN user_id LIKE 'u2-%' THEN now() ELSE ${HOUR} - interval '9 days' END, now()
           FROM user_credits`,
        );
        await sql(
          target,
          `INSERT INTO billing_hours (hour, finished_at) VALUES (${HOUR} - interval '3 hours', now())`,
        );
        return target;
      }

      const withoutNumbers = (lines: readonly string[]) => lines.map((line) => line.replace(/-\d+ /, " "));
      const expected = EXPECTED.flatMap((line) => Array.from({ length: SETS }, () => line)).toSorted();

      test("two masters at once, one killed half-way: no hour twice, none lost, and nothing is added later", async () => {
        const target = await outage();
        const [killed, other] = [
          await startBilling(target, { master: "a", once: true, batchSize: 3 }),
          await startBilling(target, { master: "b", once: true, batchSize: 4 }),
        ];
        await until("some are charged", async () => (await charges(target)).length > SETS);
        killed.signal("SIGKILL");
        expect(await killed.ended).toBe("SIGKILL");
        expect((await charges(target)).length).toBeLessThan(EXPECTED.length * SETS);
        expect(await other.ended).toBe(0);
        expect(withoutNumbers(await charges(target)).toSorted()).toEqual(expected);
        const run = runOn(target);
        await Promise.all([runDeduction(run), runDeduction(run)]);
        await catchUp(run, "2000-01-01T00:00Z");
        expect(withoutNumbers(await charges(target)).toSorted()).toEqual(expected);
        // One negative step each, and then none.
        expect(
          await sql(
            target,
            `SELECT left(user_id, 2) AS u, count(*)::int AS n FROM user_credits WHERE balance_fula < 0 AND is_suspended = 1 GROUP BY 1`,
          ),
        ).toEqual([{ u: "u5", n: SETS }]);
      });

      test("the one that was killed alone leaves the rest to the next, on whichever master", async () => {
        const target = await outage();
        const killed = await startBilling(target, { master: "a", once: true, batchSize: 2 });
        await until("some are charged", async () => (await charges(target)).length > SETS / 2);
        killed.signal("SIGKILL");
        expect(await killed.ended).toBe("SIGKILL");
        expect((await charges(target)).length).toBeLessThan(EXPECTED.length * SETS);
        await startBilling(target, { master: "b", once: true }).then(({ ended }) => ended);
        expect(withoutNumbers(await charges(target)).toSorted()).toEqual(expected);
      });
    });

    test(
      "H06: in a day of heartbeats, sessions of the pool that end make nobody step down",
      { timeout: 180_000 },
      async () => {
        await awayFromTheHour();
        const target = await postgres.createDatabase();
        await setBalance(target, "u1", 1_000);
        await addPins(target, "u1", 10 * GIB);
        const lines: string[] = [];
        const [a, b] = ["a", "b"].map((holder) => {
          const lease = openLease({
            target,
            pool: poolOf(target),
            holder,
            log: (line) => void lines.push(`${holder} ${line}`),
            silentAfterMs: 60_000,
          });
          onTestFinished(() => lease.release());
          return lease;
        });
        if (a === undefined || b === undefined) throw new Error("two leases were opened");
        const beats = (24 * 3_600) / 10;
        let ended = 0;
        for (let beat = 0; beat < beats; beat += 1) {
          const looks = [await a.lookAgain(), beat % 6 === 0 ? await b.lookAgain() : false];
          if (looks[0] !== true || looks[1] !== false)
            throw new Error(`beat ${beat}: ${String(looks)}\n${lines.join("\n")}`);
          // Every ten minutes, as a pool does with what is idle or old.
          if (beat % 60 === 30)
            ended += (
              await sql(
                target,
                `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'fula-node crons'`,
              )
            ).length;
          const bank = a.bank();
          if (beat % 360 === 0 && bank !== null) {
            // The hour is another one: what was charged is of earlier hours.
            await sql(target, "DELETE FROM billing_hours");
            await sql(target, "UPDATE credit_history SET reference_id = 'past:' || id");
            await runDeduction({ bank, tariff: tariffOf(PRICING), log: () => {}, batchSize: 10 });
          }
        }
        expect(ended).toBeGreaterThan(100);
        expect(lines.filter((line) => /lost|acquired|silent/.test(line))).toEqual([
          "a [leaderLease] acquired cron lease — this master runs the crons",
        ]);
        expect(await sql(target, "SELECT generation::int AS g, holder FROM cron_lease")).toEqual([
          { g: 1, holder: "a" },
        ]);
        expect(await sql(target, "SELECT FROM credit_history")).toHaveLength(24);
      },
    );

    test("H06: Postgres is killed and starts again: both masters come back, one leads, nobody pays twice", async () => {
      await awayFromTheHour();
      const target = await postgres.createDatabase();
      const COUNT = 2_000;
      await addAccounts(target, COUNT);
      const masters = [
        await startBilling(target, { master: "a", batchSize: 20 }),
        await startBilling(target, { master: "b", batchSize: 20 }),
      ];
      await until("some are charged", async () => (await charges(target)).length > 100);
      const postmaster = await Postmaster.of(target);
      await postmaster.end("SIGKILL");
      await until("both have noticed", async () =>
        masters.every((master) => /does not answer|ended early|lost the cron lease/.test(master.output())),
      );
      const before = masters.map((master) => master.output().length);
      await postmaster.start();
      await until("all are charged", async () => (await charges(target)).length >= COUNT, 60_000);
      expect(new Set(await charges(target)).size).toBe(COUNT);
      const since = () => masters.map((master, n) => master.output().slice(before[n]));
      await until("one leads, and the other stands by", async () => {
        const [one = "", other = ""] = since();
        const stands = (text: string) => text.includes("standby (lease held by another master)");
        const leads = (text: string) => text.includes("acquired cron lease");
        return (leads(one) && stands(other)) || (leads(other) && stands(one));
      });
      expect(
        await sql(
          target,
          "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 815551001 AND granted",
        ),
      ).toHaveLength(1);
    });

    describe("H16: several masters scan at once, and the third of five deposits fails", () => {
      const ACCOUNTS = ["a", "b", "c", "d", "e"];
      const THIRD = 930;

      /** While `fault` is not null, the credit of the third fails `times` times. The cursor may never pass a deposit that is nowhere. */
      async function five(code: string | null, times = 1_000_000) {
        const target = await postgres.createDatabase();
        const chain = await startFakeChain();
        await addChain(target);
        for (const account of ACCOUNTS) await linkWallet(target, account);
        for (const [n, account] of ACCOUNTS.entries())
          chain.pay({ block: 910 + n * 10, from: walletOf(account), units: ONE });
        await sql(
          target,
          `CREATE SEQUENCE faults;
           CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.user_id = 'c' AND ${code === null ? "false" : `nextval('faults') <= ${times}`} THEN
               RAISE EXCEPTION 'not this one' USING ERRCODE = '${code ?? "P0001"}';
             END IF;
             RETURN NEW;
           END $$;
           CREATE TRIGGER refuse BEFORE INSERT ON credit_history FOR EACH ROW EXECUTE FUNCTION refuse();
           CREATE TABLE passed (block bigint);
           CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.last_scanned_block >= ${THIRD}
               AND NOT EXISTS (SELECT FROM deposits WHERE block_number = ${THIRD} AND account IS NOT NULL)
               AND NOT EXISTS (SELECT FROM failed_deposits WHERE (transfer->>'block')::int = ${THIRD})
             THEN INSERT INTO passed VALUES (NEW.last_scanned_block); END IF;
             RETURN NEW;
           END $$;
           CREATE TRIGGER watch AFTER UPDATE ON chain_sync_state FOR EACH ROW EXECUTE FUNCTION watch()`,
        );
        return { target, chain };
      }

      /** Three masters, each with connections of its own. */
      const scanOnThree = async (target: PostgresTarget, url: string): Promise<number> => {
        const scans = [1, 2, 3].map(() => scanChains(scanOf(target, { url })));
        const ended = await Promise.allSettled(scans);
        for (const one of ended)
          if (one.status === "rejected") expect(String(one.reason)).toMatch(/not this one/);
        return ended.filter(({ status }) => status === "rejected").length;
      };

      const credited = (names: readonly string[]) => names.map((name) => `${name} 1`);

      test.each([
        ["a deadlock, once", "40P01", 1],
        ["a deadlock, for each of them and twice", "40P01", 6],
      ])("%s: all five are credited once, and the cursor waits", async (_, code, times) => {
        const { target, chain } = await five(code, times);
        let failures = 0;
        await until("all are credited", async () => {
          failures += await scanOnThree(target, chain.url);
          return (await cursorOf(target)) === 988;
        });
        expect(failures).toBe(times);
        expect(await balances(target)).toEqual(credited(ACCOUNTS));
        expect(await sql(target, "SELECT FROM credit_history")).toHaveLength(5);
        expect(await sql(target, "SELECT FROM passed")).toEqual([]);
        expect(await sql(target, "SELECT FROM failed_deposits")).toEqual([]);
      });

      test("always: the others are credited, it stands in the list once, and all of them go on", async () => {
        const { target, chain } = await five("22003");
        for (let n = 0; n < 3; n += 1) expect(await scanOnThree(target, chain.url)).toBe(0);
        expect(await balances(target)).toEqual(credited(["a", "b", "d", "e"]));
        expect(await cursorOf(target)).toBe(988);
        expect(await sql(target, "SELECT FROM credit_history")).toHaveLength(4);
        expect(await sql(target, "SELECT FROM passed")).toEqual([]);
        expect(await sql(target, "SELECT reason FROM failed_deposits")).toEqual([{ reason: "not this one" }]);
      });

      test("Postgres is gone: the masters wait, and all five are credited in the end", async () => {
        const { target, chain } = await five(null);
        // The third waits for a row that another session holds, until Postgres is gone.
        await sql(target, "INSERT INTO user_credits (user_id, balance_fula) VALUES ('c', 0)");
        const billing = {
          vault: VAULT,
          chains: [{ id: 8_453, url: chain.url, confirmations: CONFIRMATIONS }],
        };
        const holder = poolOf(target);
        const held = holder
          .transaction(async (database) => {
            await database.query("SELECT FROM user_credits WHERE user_id = 'c' FOR UPDATE");
            await database.query("SELECT pg_sleep(600)");
          })
          .catch(() => "the server ended");
        const masters = [
          await startBilling(target, { master: "a", billing, batchSize: 10 }),
          await startBilling(target, { master: "b", billing, batchSize: 10 }),
        ];
        await until("two are credited", async () => (await balances(target)).length === 2);
        const postmaster = await Postmaster.of(target);
        await postmaster.end("SIGKILL");
        expect(await held).toBe("the server ended");
        await until("both have noticed", async () =>
          masters.every((master) => /does not answer|ended early|lost the cron lease/.test(master.output())),
        );
        await postmaster.start();
        expect(await cursorOf(target)).toBeLessThan(THIRD);
        await until("all are credited", async () => (await cursorOf(target)) === 988, 60_000);
        expect(await balances(target)).toEqual(credited(ACCOUNTS));
        expect(await sql(target, "SELECT FROM credit_history")).toHaveLength(5);
        expect(await sql(target, "SELECT FROM passed")).toEqual([]);
        expect(await sql(target, "SELECT FROM failed_deposits")).toEqual([]);
      });
    });
  },
  { template: migrate },
);
