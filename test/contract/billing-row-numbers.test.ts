import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { readHistory } from "../../src/accounts/credits.ts";
import { HOURS_BACK, runDeduction } from "../../src/billing/deduction.ts";
import { judgeBilling, readStanding } from "../../src/billing/runs.ts";
import { scanChains } from "../../src/billing/scan.ts";
import { billingRun } from "../../src/commands/billing/billing.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { addPins, awayFromTheHour, charges, GIB, runOn, setBalance } from "../support/billing.ts";
import { addChain, balances, cursorOf, linkWallet, ONE, scanOf, walletOf } from "../support/deposits.ts";
import { startFakeChain, VAULT } from "../support/fake-chain.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { pageUrl } from "../support/pages.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { masterOn } from "../services/verbs-master.ts";

const LAST = 2_147_483_647;

/** As if the table had numbered so many rows. */
async function numbered(target: PostgresTarget, rows: number, table = "credit_history"): Promise<void> {
  await sql(target, "SELECT setval(pg_get_serial_sequence($1, 'id'), $2)", [table, rows]);
}

/** The statement that the page tells. */
async function continueAsThePageSays(target: PostgresTarget): Promise<void> {
  const page = await readFile(pageUrl("docs/billing.md"), "utf8");
  const [, statement = ""] = /```sql\n(ALTER SEQUENCE[^`]*)```/.exec(page) ?? [];
  expect(statement).not.toBe("");
  await sql(target, statement);
}

describeOnPostgres(
  "row numbers that are used up",
  (postgres) => {
    const judged = async (target: PostgresTarget) => {
      const standing = await readStanding(poolOf(target), HOURS_BACK);
      if (standing === null) throw new Error("no tables");
      return judgeBilling(standing, { lease: false, deductionIntervalMs: 3_600_000 });
    };
    const accounts = ["u1", "u2", "u3"];

    async function start() {
      await awayFromTheHour();
      const target = await postgres.createDatabase();
      for (const account of accounts) {
        await setBalance(target, account, 100);
        await addPins(target, account, 10 * GIB);
      }
      return { target, run: runOn(target) };
    }

    test("a run stops, the hour stays open, and nobody is put aside; with negative numbers it goes on", async () => {
      const { target, run } = await start();
      await numbered(target, LAST - 1);
      await expect(runDeduction(run)).rejects.toThrow(/reached maximum value of sequence/);
      expect(await charges(target)).toEqual([]);
      expect(await sql(target, "SELECT FROM failed_charges")).toEqual([]);
      expect(await sql(target, "SELECT finished_at FROM billing_hours")).toEqual([{ finished_at: null }]);
      expect(await balances(target)).toEqual(["u1 100", "u2 100", "u3 100"]);
      expect(await judged(target)).toEqual({
        state: "attention",
        sentence: "credit_history has no row numbers left: nothing is charged or credited",
        todo: "see docs/billing.md#row-numbers",
      });
      const { baseDir, world } = await masterOn(target, {
        VAULT_ADDRESS: VAULT,
        JWT_SECRET: "s".repeat(40),
        ENCRYPTION_KEY: "ab".repeat(32),
      });
      await expect(billingRun({ baseDir, dryRun: false }, world)).rejects.toMatchObject({
        exit: "drift",
        remedy: expect.stringContaining("docs/billing.md#row-numbers") as string,
      });

      await continueAsThePageSays(target);
      await runDeduction(run);
      expect(await charges(target)).toEqual(["u1 0", "u2 0", "u3 0"]);
      expect(await sql(target, "SELECT max(id) < 0 AS negative FROM credit_history")).toEqual([
        { negative: true },
      ]);
      expect((await judged(target)).state).toBe("ok");
      // Its numbers end too.
      await numbered(target, -1);
      expect((await judged(target)).sentence).toMatch(/no row numbers left/);
    });

    test("a deposit waits, and the cursor before it", async () => {
      const { target } = await start();
      const chain = await startFakeChain();
      await addChain(target);
      await linkWallet(target, "a");
      chain.pay({ block: 950, from: walletOf("a"), units: ONE });
      const scan = scanOf(target, chain);
      await numbered(target, LAST);
      await expect(scanChains(scan)).rejects.toThrow(/reached maximum value of sequence/);
      expect(await cursorOf(target)).toBe(900);
      expect(await sql(target, "SELECT FROM failed_deposits")).toEqual([]);
      await continueAsThePageSays(target);
      await scanChains(scan);
      expect(await balances(target)).toContain("a 1");
      expect(await cursorOf(target)).toBe(988);
    });

    test("the same where somebody gave the sequence 8 bytes, and the column still has 4", async () => {
      const { target, run } = await start();
      const chain = await startFakeChain();
      await addChain(target);
      await linkWallet(target, "a");
      chain.pay({ block: 950, from: walletOf("a"), units: ONE });
      await sql(target, "ALTER SEQUENCE credit_history_id_seq AS bigint");
      await numbered(target, LAST - 1);
      await expect(runDeduction(run)).rejects.toThrow(/integer out of range/);
      await expect(scanChains(scanOf(target, chain))).rejects.toThrow(/integer out of range/);
      expect(await charges(target)).toEqual([]);
      expect(await sql(target, "SELECT FROM failed_charges")).toEqual([]);
      expect(await sql(target, "SELECT FROM failed_deposits")).toEqual([]);
      expect(await cursorOf(target)).toBe(900);
      expect((await judged(target)).sentence).toMatch(/no row numbers left/);
      const { baseDir, world } = await masterOn(target, {
        VAULT_ADDRESS: VAULT,
        JWT_SECRET: "s".repeat(40),
        ENCRYPTION_KEY: "ab".repeat(32),
      });
      await expect(billingRun({ baseDir, dryRun: false }, world)).rejects.toMatchObject({
        exit: "drift",
        remedy: expect.stringContaining("docs/billing.md#row-numbers") as string,
      });
      await continueAsThePageSays(target);
      await runDeduction(run);
      await scanChains(scanOf(target, chain));
      expect(await charges(target)).toEqual(["u1 0", "u2 0", "u3 0"]);
      expect(await balances(target)).toContain("a 1");
    });

    test("a number that another row has, as after a move of the database without its sequences", async () => {
      const { target, run } = await start();
      const chain = await startFakeChain();
      await addChain(target);
      await linkWallet(target, "a");
      chain.pay({ block: 950, from: walletOf("a"), units: ONE });
      await sql(
        target,
        `INSERT INTO credit_history (id, user_id, tx_type, amount_fula, balance_after)
         SELECT id, 'u9', 'adjustment', 1, 1 FROM generate_series(101, 130) AS id`,
      );
      await numbered(target, 100);
      await numbered(target, 1_000_000, "user_credits");
      await expect(runDeduction(run)).rejects.toThrow(/credit_history_pkey/);
      await expect(scanChains(scanOf(target, chain))).rejects.toThrow(/credit_history_pkey/);
      expect(await charges(target)).toEqual([]);
      for (const table of ["failed_charges", "failed_deposits"])
        expect(await sql(target, `SELECT FROM ${table}`)).toEqual([]);
      expect(await cursorOf(target)).toBe(900);
      expect(await judged(target)).toEqual({
        state: "attention",
        sentence: "the next row number of credit_history is another row's: nothing is charged or credited",
        todo: "see docs/billing.md#row-numbers",
      });
      const page = await readFile(pageUrl("docs/billing.md"), "utf8");
      await sql(target, /```sql\n(SELECT setval[^`]*)```/.exec(page)?.[1] ?? "");
      await runDeduction(run);
      await scanChains(scanOf(target, chain));
      expect(await charges(target)).toEqual(["u1 0", "u2 0", "u3 0"]);
      expect(await balances(target)).toContain("a 1");
      expect((await judged(target)).state).toBe("ok");
    });

    test("an account that is new waits for a number of user_credits", async () => {
      const { target, run } = await start();
      await addPins(target, "new", 10 * GIB);
      await numbered(target, LAST, "user_credits");
      await expect(runDeduction(run)).rejects.toThrow(/user_credits_id_seq/);
      expect(await sql(target, "SELECT FROM failed_charges")).toEqual([]);
      expect((await judged(target)).sentence).toMatch(/^user_credits has no row numbers left/);
    });

    test("status warns from 80 % on, and says for how long the others last", async () => {
      const { target, run } = await start();
      await runDeduction(run);
      await numbered(target, Math.floor(LAST * 0.799));
      expect((await judged(target)).state).toBe("ok");
      await numbered(target, Math.floor(LAST * 0.84));
      await sql(target, "UPDATE billing_hours SET charged = 1000000");
      expect(await judged(target)).toMatchObject({
        state: "attention",
        sentence: "credit_history has used 83 % of its row numbers: the others last 14 days",
        todo: "see docs/billing.md#row-numbers",
      });
      // Also where upstream's image charges.
      const standing = await readStanding(poolOf(target), HOURS_BACK);
      const of = (more: object) =>
        standing === null
          ? null
          : judgeBilling({ ...standing, ...more }, { lease: true, deductionIntervalMs: 3_600_000 });
      expect(of({ isElsewhere: true })?.sentence).toMatch(/^credit_history has used/);
      expect(of({ isElsewhere: true, numbersUsed: 0.1 })?.state).toBe("ok");
    });

    test("the history is in the order of time, over both kinds of numbers", async () => {
      const { target, run } = await start();
      await sql(
        target,
        `INSERT INTO credit_history (id, user_id, tx_type, amount_fula, balance_after, created_at)
         SELECT id, 'u9', 'adjustment', 1, 1, to_timestamp(at)
         FROM (VALUES (${LAST}, 1), (-2147483647, 2), (-2147483646, 2), (-2147483645, 3)) AS t (id, at)`,
      );
      const read: number[] = [];
      let before = null;
      for (let page = 0; page < 5; page += 1) {
        const [entry] = await readHistory(run.bank, "u9", { before, limit: 1 });
        if (entry === undefined) break;
        read.push(entry.id);
        before = { created: entry.created, id: entry.id };
      }
      expect(read).toEqual([-2_147_483_645, -2_147_483_646, -2_147_483_647, LAST]);
    });
  },
  { template: migrate },
);
