import { describe, expect, test } from "vitest";
import {
  catchUp,
  HOURS_BACK,
  previewDeduction,
  runDeduction,
  waiveHours,
} from "../../src/billing/deduction.ts";
import type { Bank } from "../../src/billing/lease.ts";
import { judgeBilling, readStanding } from "../../src/billing/runs.ts";
import { billingRun, billingRuns } from "../../src/commands/billing/billing.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import {
  addAccounts,
  addPins,
  awayFromTheHour,
  charges,
  GIB,
  lastBilled,
  runOn,
  setBalance,
} from "../support/billing.ts";
import { VAULT } from "../support/fake-chain.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { inSession, sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { masterOn } from "../services/verbs-master.ts";

const HOUR_MS = 3_600_000;
const CURRENT = "date_trunc('hour', now(), 'UTC')";

describeOnPostgres(
  "bounds of a run of the billing",
  (postgres) => {
    async function start(accounts: readonly string[] = ["u1"]) {
      await awayFromTheHour();
      const target = await postgres.createDatabase();
      for (const account of accounts) {
        await setBalance(target, account, 100);
        await addPins(target, account, 10 * GIB);
      }
      return { target, run: runOn(target) };
    }
    const judged = async (target: PostgresTarget) => {
      const standing = await readStanding(poolOf(target), HOURS_BACK);
      return standing && judgeBilling(standing, { lease: false, deductionIntervalMs: HOUR_MS });
    };

    describe("a clock that can't be right", () => {
      test.each([
        ["72 hours ahead", 72],
        ["10 days behind", -240],
        ["six minutes ahead", 0.1],
      ])("the database's is %s: nothing is charged, shown or waived", async (_, hours) => {
        const { target, run } = await start();
        await lastBilled(target, 5);
        const wrong = { ...run, nowMs: () => Date.now() - hours * HOUR_MS };
        for (const work of [
          () => runDeduction(wrong),
          () => catchUp(wrong, "2026-01-31T00:00Z"),
          () => previewDeduction(wrong, null),
        ])
          await expect(work()).rejects.toMatchObject({
            exit: "unavailable",
            what: expect.stringMatching(
              /^Nothing is billed: the clock of the database is .* (?:ahead of|behind) this machine's\.$/,
            ) as string,
          });
        expect(await charges(target)).toEqual([]);
        expect(await sql(target, "SELECT FROM billing_hours")).toHaveLength(1);
      });

      test("an hour that has not come was billed: nothing is charged until it is taken out", async () => {
        const { target, run } = await start();
        await lastBilled(target, -3);
        await expect(runDeduction(run)).rejects.toMatchObject({
          what: expect.stringMatching(/the hour \S+ was billed, and has not come yet/) as string,
        });
        await expect(waiveHours(run.bank, "2026-01-31T00:00Z")).rejects.toMatchObject({
          exit: "unavailable",
        });
        expect(await judged(target)).toMatchObject({
          state: "attention",
          sentence: expect.stringMatching(/^nothing is charged: the hour \S+ was billed/) as string,
          todo: "see docs/billing.md#clocks",
        });
        expect(await charges(target)).toEqual([]);
        await sql(target, "DELETE FROM billing_hours WHERE hour > now()");
        await runDeduction(run);
        expect(await charges(target)).toEqual(["u1 0"]);
      });

      test("four minutes, and the next hour, are no reason; an hour of 1970 makes none that were forgotten", async () => {
        const { target, run } = await start();
        await sql(
          target,
          "INSERT INTO billing_hours (hour, finished_at) VALUES ('1970-01-01T00:00Z', now())",
        );
        await lastBilled(target, 1);
        for (const minutes of [4, -4])
          await runDeduction({ ...run, nowMs: () => Date.now() + minutes * 60_000 });
        expect(await charges(target)).toEqual(["u1 0"]);
        expect(await judged(target)).toMatchObject({ state: "ok" });
        expect(await previewDeduction(run, "1970-01-01T00:00Z")).toEqual([]);
      });
    });

    test("rows that another session holds: the others are charged in the same run, which waits once", async () => {
      const accounts = ["u1", "u2", "u3", "u4", "u5", "u6"];
      const { target, run } = await start(accounts);
      let waits = 0;
      const bank: Bank = {
        query: (...statement) => run.bank.query(...statement),
        transaction: async (work) => {
          try {
            return await run.bank.transaction(async (database) => {
              await database.query("SET LOCAL lock_timeout = '500ms'");
              return work(database);
            });
          } catch (thrown) {
            waits += 1;
            throw thrown;
          }
        },
      };
      const limited = { ...run, bank, batchSize: 2 };
      await inSession(target, async (client) => {
        await client.query("BEGIN");
        await client.query("SELECT FROM user_credits WHERE user_id IN ('u1', 'u4', 'u5') FOR UPDATE");
        const report = await runDeduction(limited);
        expect(report).toMatchObject({ isComplete: true, hours: [{ charged: 3, failed: 3 }] });
        expect(waits).toBe(1);
        expect(await charges(target)).toEqual(["u2 0", "u3 0", "u6 0"]);
        // Nor does a retry wait.
        await runDeduction(limited);
        expect(waits).toBe(1);
        expect(
          await sql(target, "SELECT account, tries, reason FROM failed_charges ORDER BY account"),
        ).toEqual(
          ["u1", "u4", "u5"].map((account) => ({
            account,
            tries: 2,
            reason: "another session held its balance",
          })),
        );
        await client.query("ROLLBACK");
      });
      await runDeduction(limited);
      expect(await charges(target)).toEqual(accounts.map((account) => `${account} 0`));
      expect(await sql(target, "SELECT FROM failed_charges")).toEqual([]);
    });

    test("more failed charges than one run tries: each gets its turn, and billing runs says how many there are", async () => {
      const { target, run } = await start();
      await addAccounts(target, 1_000, "'NaN'");
      await lastBilled(target, 1);
      await sql(
        target,
        `INSERT INTO failed_charges (hour, account, fee, reason, failed_at)
           SELECT ${CURRENT}, user_id, 1, 'r', now() - interval '2 hours' FROM user_credits WHERE user_id <> 'u1'`,
      );
      await sql(
        target,
        `INSERT INTO failed_charges (hour, account, fee, reason, failed_at) VALUES (${CURRENT}, 'u1', 1, 'r', now() - interval '1 hour')`,
      );
      const { baseDir, world, results } = await masterOn(target, { VAULT_ADDRESS: VAULT });
      await billingRuns({ baseDir }, world);
      expect(results.at(-1)?.lines.at(-1)).toBe("And 977 more.");
      await runDeduction(run);
      expect(await charges(target)).toEqual([]);
      await runDeduction(run);
      expect(await charges(target)).toEqual(["u1 0"]);
    }, 240_000);

    test("Postgres ends the session in the middle: that is no bug, and running again goes on", async () => {
      const { target } = await start();
      const { baseDir, world } = await masterOn(target, { VAULT_ADDRESS: VAULT });
      await sql(
        target,
        `CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$`,
      );
      await sql(
        target,
        "CREATE TRIGGER gone BEFORE INSERT ON credit_history FOR EACH ROW EXECUTE FUNCTION gone()",
      );
      await expect(billingRun({ baseDir, dryRun: false }, world)).rejects.toMatchObject({
        exit: "unavailable",
        what: expect.stringMatching(
          /stopped in the middle of the command: .*terminating connection/,
        ) as string,
      });
      expect(await charges(target)).toEqual([]);
      await sql(target, "DROP TRIGGER gone ON credit_history");
      expect(await billingRun({ baseDir, dryRun: false }, world)).toBe("ok");
      expect(await charges(target)).toEqual(["u1 0"]);
    });
  },
  { template: migrate },
);
