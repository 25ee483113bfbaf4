import { expect, test } from "vitest";
import { runDeduction } from "../../src/billing/deduction.ts";
import { leaseDrill } from "../../src/drills/lease-drill.ts";
import { addAccounts, billFaults } from "../../src/drills/scratch/scratch-accounts.ts";
import { takeoverDrill } from "../../src/drills/takeover-drill.ts";
import { runOn } from "../support/billing.ts";
import { drillDatabases, drillDeps, processesOf, runDrill, type Twin } from "../support/drills.ts";
import { migrate } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

/** A charge of the newest hour is forgotten as soon as that hour is done: it is charged again. */
const FORGETS = `
  CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN DELETE FROM credit_history WHERE user_id = 'drill-account-0007'; RETURN NEW; END $$;
  CREATE TRIGGER forget AFTER UPDATE OF finished_at ON billing_hours FOR EACH ROW
    WHEN (NEW.hour = date_trunc('hour', now(), 'UTC') AND OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL)
    EXECUTE FUNCTION forget()`;

describeOnPostgres(
  "D3 and D4",
  (postgres) => {
    async function run(drill: typeof leaseDrill, twin: Twin = {}) {
      const target = await postgres.createDatabase();
      const deps = await drillDeps(twin);
      const outcome = await runDrill(drill, deps, target);
      expect(await drillDatabases(target)).toEqual([]);
      expect(await processesOf(deps.packageDir)).toEqual([]);
      return outcome;
    }

    test("D3 passes, and leaves nothing", async () => {
      const outcome = await run(leaseDrill);
      expect(outcome).toMatchObject({ state: "passed", todo: null });
      expect(outcome.summary).toMatch(
        /^one of two crons led; 40 accounts, [67] hours: 2[48]0 charges, each once/,
      );
    });

    test("D3 fails without the lease: both lead", async () => {
      const outcome = await run(leaseDrill, { billing: { lease: false } });
      expect(outcome).toMatchObject({
        state: "failed",
        summary: "2 of 2 crons led at the same time: drill-master-a, drill-master-b",
      });
    });

    test("D3 fails without the index that allows one charge for each user and hour", async () => {
      const outcome = await run(leaseDrill, { sql: "DROP INDEX idx_credit_history_hourly_dedup" });
      expect(outcome.state).toBe("failed");
      expect(outcome.summary).toMatch(
        /^a run of drill-master-[ab] failed: deduction: .*no unique or exclusion/,
      );
    });

    test("D3 fails if charges are forgotten, and one of them is charged again", async () => {
      const outcome = await run(leaseDrill, { sql: FORGETS });
      expect(outcome.state).toBe("failed");
      expect(outcome.summary).toMatch(
        /charges are missing, first drill-account-0007 hour:.*; the balance of 1 account is not what the charges leave, first drill-account-0007$/,
      );
    });

    test("D3 fails if nobody can lead", async () => {
      const outcome = await run(leaseDrill, {
        sql: "ALTER TABLE cron_lease ADD CONSTRAINT nobody CHECK (generation < 1)",
      });
      expect(outcome.state).toBe("failed");
      expect(outcome.summary).toMatch(/^no cron led within 5 s; it said last: /);
    });

    test("D4 passes, and leaves nothing", async () => {
      const outcome = await run(takeoverDrill);
      expect(outcome).toMatchObject({ state: "passed", todo: null });
      expect(outcome.summary).toMatch(/completed; (?:180|240) charges, each once and exact$/);
      expect(outcome.evidence["charges of the hour when it was killed"]).toBe("30 of 60");
    });

    test("D4 fails without the lease: both lead", async () => {
      const outcome = await run(takeoverDrill, { billing: { lease: false } });
      expect(outcome.summary).toBe("2 of 2 crons led at the same time: drill-master-a, drill-master-b");
    });

    test("D4 fails if nobody can take over", async () => {
      const outcome = await run(takeoverDrill, {
        sql: "ALTER TABLE cron_lease ADD CONSTRAINT one_only CHECK (generation < 2)",
      });
      expect(outcome.state).toBe("failed");
      expect(outcome.summary).toMatch(
        /^drill-master-[ab] did not take over within 15 s after drill-master-[ab] was/,
      );
    });

    test("D4 fails if what the killed leader did not commit is charged and forgotten", async () => {
      const outcome = await run(takeoverDrill, { sql: FORGETS });
      expect(outcome.state).toBe("failed");
      expect(outcome.summary).toMatch(
        /the other cron took over .*charges are missing, first drill-account-0007/,
      );
    });

    test("the bill of a drill sees what is missing, doubled, put aside, or wrong in a balance", async () => {
      const target = await postgres.createDatabase();
      const deduction = runOn(target);
      const accounts = await addAccounts(deduction.bank, { count: 7, missedHours: 2 });
      expect((await billFaults(deduction.bank, accounts)).faults).toEqual([
        `21 charges are missing, first drill-account-0001 ${accounts.hours[0]}`,
        "the balance of 7 accounts is not what the charges leave, first drill-account-0001",
      ]);
      await runDeduction(deduction);
      expect(await billFaults(deduction.bank, accounts)).toEqual({ charges: 21, faults: [] });
      await sql(target, "DROP INDEX idx_credit_history_hourly_dedup");
      await sql(
        target,
        `INSERT INTO credit_history (user_id, tx_type, amount_fula, balance_after, reference_id)
         SELECT user_id, tx_type, amount_fula, balance_after, reference_id FROM credit_history
         WHERE user_id = 'drill-account-0003' AND reference_id = $1`,
        [accounts.hours[1]],
      );
      await sql(
        target,
        "UPDATE exact_credits SET balance = balance - 1e-18 WHERE account = 'drill-account-0005'",
      );
      await sql(
        target,
        "INSERT INTO failed_charges (hour, account, fee, reason) SELECT max(hour), 'drill-account-0001', 1, 'x' FROM billing_hours",
      );
      expect(await billFaults(deduction.bank, accounts)).toEqual({
        charges: 22,
        faults: [
          `1 hour of an account was charged more than once, first drill-account-0003 ${accounts.hours[1]}`,
          "1 charge was put aside as failed",
          "the balance of 2 accounts is not what the charges leave, first drill-account-0003",
        ],
      });
    });
  },
  { template: migrate },
);
