import { expect, test } from "vitest";
import { adjustCredit, readHistory } from "../../src/accounts/credits.ts";
import { usageOf } from "../../src/accounts/usage.ts";
import {
  catchUp,
  HOURS_BACK,
  previewDeduction,
  runDeduction,
  waiveHours,
} from "../../src/billing/deduction.ts";
import { readStanding } from "../../src/billing/runs.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import {
  addAccounts,
  addPins,
  awayFromTheHour,
  charges,
  GIB,
  inUnits,
  lastBilled,
  PRICING,
  runOn,
  setBalance,
  unitsOf,
} from "../support/billing.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import { until } from "../support/migrations.ts";
import { inSession, sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

interface Money extends Record<string, unknown> {
  readonly balance: string;
  readonly shown: number;
  readonly deducted: string;
  readonly taken: string;
}

async function moneyOf(target: PostgresTarget, account: string): Promise<Money> {
  const [row] = await sql<Money>(
    target,
    `SELECT a.balance::text, c.balance_fula AS shown, a.deducted::text,
       (SELECT coalesce(-sum(amount_fula::float8), 0)::text FROM credit_history WHERE user_id = $1 AND tx_type = 'hourly_deduction') AS taken
     FROM account_credits a JOIN user_credits c ON c.user_id = a.account WHERE a.account = $1`,
    [account],
  );
  if (row === undefined) throw new Error(`${account} has no balance`);
  return row;
}

/** The distance of a float4 to the next one. */
function stepOf(value: number): number {
  const bits = new DataView(new ArrayBuffer(4));
  bits.setFloat32(0, Math.abs(value));
  bits.setInt32(0, bits.getInt32(0) + 1);
  return bits.getFloat32(0) - Math.abs(Math.fround(value));
}

describeOnPostgres(
  "the hourly deduction",
  (postgres) => {
    test("H01: 720 hours of a small fee are taken exactly, whatever the balance is", async () => {
      const target = await postgres.createDatabase();
      const bytes = Math.round(1.448 * GIB);
      const balances = [200_000, 131_072, 100_000, 50_000, 10];
      for (const balance of balances) {
        await setBalance(target, `u${balance}`, balance);
        await addPins(target, `u${balance}`, bytes);
      }
      await lastBilled(target, 721);
      const run = runOn(target);
      const [{ hour } = { hour: "" }] = await previewDeduction(run, "2000-01-01T00:00Z");
      const report = await catchUp(run, hour);
      expect(report.hours).toHaveLength(720);
      const units = unitsOf(bytes) * 720n;
      expect(Number(units) / 1e18).toBeCloseTo(2.879, 3);
      for (const balance of balances) {
        const { balance: exact, shown, deducted, taken } = await moneyOf(target, `u${balance}`);
        expect(inUnits(exact)).toBe(BigInt(balance) * 10n ** 18n - units);
        expect(inUnits(deducted)).toBe(units);
        // What upstream's image reads: the rounding of the exact balance, which the driver hands out as a number.
        expect(shown).toBeTypeOf("number");
        expect(Math.fround(shown)).toBe(Math.fround(Number(exact)));
        expect(Math.abs(Number(taken) - Number(units) / 1e18)).toBeLessThan(stepOf(balance));
        const usage = await usageOf(run.bank, `u${balance}`);
        expect(usage.balanceFula).toBe(Number(exact));
        const read = await sql(
          target,
          "SELECT c.*, h.amount_fula, h.balance_after FROM user_credits c JOIN credit_history h USING (user_id) WHERE user_id = $1 LIMIT 1",
          [`u${balance}`],
        );
        for (const [column, value] of Object.entries(read[0] ?? {}))
          if (/_fula$|^balance|^is_/.test(column)) expect([column, typeof value]).toEqual([column, "number"]);
        const [newest] = await readHistory(run.bank, `u${balance}`, { before: null, limit: 1 });
        expect(newest?.balanceAfterFula).toBe(shown);
      }
    });

    test("H01: 100,000 credits and debits at random leave the exact sum, and the REAL is its rounding", async () => {
      const target = await postgres.createDatabase();
      // In transactions of 2,000: the sum of what was drawn is kept by the database, in numeric.
      await sql(target, "CREATE TABLE drawn (account text, amount numeric)");
      for (let round = 0; round < 50; round += 1)
        await sql(
          target,
          `WITH made AS MATERIALIZED (
             SELECT 'u' || n % 400 AS account, round((random() * power(10, random() * 6) * sign(random() - 0.5))::numeric, 8) AS amount
             FROM generate_series(1, 2000) AS n
           ), noted AS (INSERT INTO drawn SELECT * FROM made)
           SELECT count(change_credits(account, amount, 0, 0, false)) FROM made`,
        );
      const [row] = await sql<{ made: number; wrong: number; unrounded: number; taken: number }>(
        target,
        `SELECT (SELECT count(*)::int FROM drawn) AS made,
           count(*) FILTER (WHERE e.balance <> d.sum)::int AS wrong,
           count(*) FILTER (WHERE e.balance::real <> c.balance_fula)::int AS unrounded,
           (SELECT count(*)::int FROM credit_takeovers) AS taken
         FROM (SELECT account, sum(amount) AS sum FROM drawn GROUP BY account) AS d
           JOIN exact_credits e USING (account) JOIN user_credits c ON c.user_id = d.account`,
      );
      expect(row).toEqual({ made: 100_000, wrong: 0, unrounded: 0, taken: 0 });
    }, 240_000);

    test("what upstream's image moves is taken over and recorded, by a charge and by a credit", async () => {
      await awayFromTheHour();
      const target = await postgres.createDatabase();
      const bytes = 10 * GIB;
      for (const account of ["by-charge", "by-credit", "still"]) {
        await setBalance(target, account, "100.1");
        await addPins(target, account, bytes);
      }
      const run = runOn(target);
      await runDeduction(run);
      const exact = 100_100_000_000_000_000_000n - unitsOf(bytes);
      expect(inUnits((await moneyOf(target, "still")).balance)).toBe(exact);

      // As upstream's deposit and deduction do it.
      await sql(
        target,
        "UPDATE user_credits SET balance_fula = balance_fula + 50, total_deposited_fula = total_deposited_fula + 50 WHERE user_id <> 'still'",
      );
      const near = (text: string, units: bigint) =>
        expect(Math.abs(Number(inUnits(text) - units)) / 1e18).toBeLessThan(2 * stepOf(150));
      // It shows at once, before anything of ours has written.
      expect((await usageOf(run.bank, "by-charge")).balanceFula).toBeCloseTo(Number(exact) / 1e18 + 50, 4);
      expect(await sql(target, "SELECT FROM credit_takeovers")).toEqual([]);

      await adjustCredit(run.bank, { account: "by-credit", amount: "1", reason: "r", key: "k", actor: "a" });
      near((await moneyOf(target, "by-credit")).balance, exact + 51n * 10n ** 18n);
      await sql(target, "DELETE FROM credit_history WHERE user_id = 'by-charge'");
      await runDeduction(run);
      near((await moneyOf(target, "by-charge")).balance, exact + 50n * 10n ** 18n - unitsOf(bytes));
      const taken = await sql<{ account: string; moved: string; deposited: string }>(
        target,
        "SELECT account, round(balance, 3)::text AS moved, round(deposited, 3)::text AS deposited FROM credit_takeovers ORDER BY account",
      );
      expect(taken).toEqual([
        { account: "by-charge", moved: "50.000", deposited: "50.000" },
        { account: "by-credit", moved: "50.000", deposited: "50.000" },
      ]);
      await runDeduction(run);
      expect(await sql(target, "SELECT FROM credit_takeovers")).toHaveLength(2);
    });

    test("upstream's rules: nothing up to the free tier, the fee above it, once an hour, and who runs out is suspended once", async () => {
      await awayFromTheHour();
      const target = await postgres.createDatabase();
      await setBalance(target, "at-tier", 5);
      await addPins(target, "at-tier", PRICING.freeTierBytes);
      await setBalance(target, "above", 100);
      await addPins(target, "above", PRICING.freeTierBytes + 10 * GIB);
      await setBalance(target, "short", "0.01");
      await addPins(target, "short", 10 * GIB);
      await addPins(target, "no-row", 10 * GIB);
      const run = runOn(target);
      const report = await runDeduction(run);
      expect(report.hours).toMatchObject([{ charged: 3, suspended: 2, failed: 0 }]);
      expect(Number((await moneyOf(target, "above")).balance)).toBeCloseTo(100 - 30 / 720, 12);
      await runDeduction(run);
      await Promise.all([runDeduction(run), runDeduction(run)]);
      expect(await charges(target)).toEqual(["above 0", "no-row 0", "short 0"]);
      const [row] = await sql<{ reference: string; now: string }>(
        target,
        `SELECT min(reference_id) AS reference, 'hour:' || to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24') AS now FROM credit_history`,
      );
      expect(row?.reference).toBe(row?.now);
      expect(
        await sql(target, "SELECT user_id, is_suspended FROM user_credits WHERE balance_fula < 0 ORDER BY 1"),
      ).toEqual([
        { user_id: "no-row", is_suspended: 1 },
        { user_id: "short", is_suspended: 1 },
      ]);
      // A balance, or less than the free tier, ends the suspension; the operator's stays.
      await sql(target, "UPDATE user_credits SET balance_fula = 7 WHERE user_id = 'short'");
      await sql(target, "UPDATE pins SET status = 'deleted' WHERE user_id = 'no-row'");
      await sql(
        target,
        "INSERT INTO user_credits (user_id, balance_fula, is_suspended, suspended_at) VALUES ('held', 9, 1, now())",
      );
      await sql(target, "INSERT INTO account_holds (account, reason, actor) VALUES ('held', 'r', 'a')");
      await runDeduction(run);
      expect(await sql(target, "SELECT user_id FROM user_credits WHERE is_suspended = 1")).toEqual([
        { user_id: "held" },
      ]);
    });

    /** All masters were stopped for three hours; this hour is the third. */
    async function outage(target: PostgresTarget): Promise<void> {
      await awayFromTheHour();
      await setBalance(target, "u1", 100);
      await addPins(target, "u1", 10 * GIB);
      await setBalance(target, "u2", 100);
      await addPins(target, "u2", 1024 * GIB, { hoursAgo: null });
      await setBalance(target, "u3", 100);
      await addPins(target, "u3", 10 * GIB, { deleted: true });
      await setBalance(target, "u4", 100, 4);
      await addPins(target, "u4", 10 * GIB);
      await setBalance(target, "u5", "0.01");
      await addPins(target, "u5", 10 * GIB);
      await lastBilled(target, 3);
    }

    const AFTER_OUTAGE = ["u1 2", "u1 1", "u1 0", "u2 0", "u3 2", "u3 1", "u4 0", "u5 2"];

    test("H05: a missed hour is charged on the pins that were there all of it, and no hour of a suspension", async () => {
      const target = await postgres.createDatabase();
      await outage(target);
      const run = runOn(target);
      const before = await previewDeduction(run, null);
      expect(before.map(({ accounts }) => accounts)).toEqual([3, 3, 3]);
      await runDeduction(run);
      expect(await charges(target)).toEqual(AFTER_OUTAGE);
      const [u5] = await sql<{ balance: number; since: number }>(
        target,
        `SELECT balance_fula AS balance, extract(epoch FROM date_trunc('hour', now(), 'UTC') - suspended_at)::int AS since
         FROM user_credits WHERE user_id = 'u5'`,
      );
      // Suspended from the end of the hour that it could not pay.
      expect(u5).toMatchObject({ since: 3_600 });
      expect(u5?.balance).toBeCloseTo(0.01 - Number(unitsOf(10 * GIB)) / 1e18, 6);
      await runDeduction(run);
      await adjustCredit(run.bank, { account: "u5", amount: "9", reason: "r", key: "k", actor: "a" });
      await sql(
        target,
        "UPDATE billing_hours SET finished_at = NULL WHERE hour > (SELECT min(hour) FROM billing_hours)",
      );
      await runDeduction(run);
      expect(await charges(target)).toEqual([...AFTER_OUTAGE, "u5 0"].sort(oldestFirst));
    });

    test("H05: a run that ends half-way is finished by another one", async () => {
      const target = await postgres.createDatabase();
      await outage(target);
      const stop = new AbortController();
      const bank = poolOf(target);
      let transactions = 0;
      const dying = {
        query: ((...statement) => bank.query(...statement)) as typeof bank.query,
        transaction: ((work) => {
          transactions += 1;
          if (transactions === 5) stop.abort();
          return bank.transaction(work);
        }) as typeof bank.transaction,
      };
      const half = await runDeduction({ ...runOn(target), bank: dying, stop: stop.signal, batchSize: 1 });
      expect(half.isComplete).toBe(false);
      const sofar = (await charges(target)).length;
      expect(sofar).toBeGreaterThan(0);
      expect(sofar).toBeLessThan(AFTER_OUTAGE.length);
      await runDeduction(runOn(target));
      expect(await charges(target)).toEqual(AFTER_OUTAGE);
    });

    test("H05: a day is charged unasked, more only by name; hours can be waived", async () => {
      await awayFromTheHour();
      const target = await postgres.createDatabase();
      await setBalance(target, "u1", 1_000);
      await addPins(target, "u1", 10 * GIB);
      await lastBilled(target, 401);
      const run = runOn(target);
      expect((await runDeduction(run)).hours).toHaveLength(25);
      expect(await charges(target)).toHaveLength(25);
      const forgotten = () => readStanding(run.bank, HOURS_BACK);
      const first = (await forgotten())?.firstForgotten ?? "";
      expect((await forgotten())?.forgotten).toBe(376);
      const [{ last } = { last: "" }] = await sql<{ last: string }>(
        target,
        `SELECT to_char((date_trunc('hour', now(), 'UTC') - interval '25 hours') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"') AS last`,
      );
      await runDeduction(run);
      expect(await charges(target)).toHaveLength(25);
      const preview = await previewDeduction(run, last);
      expect(preview).toMatchObject([{ hour: last, accounts: 1 }]);
      expect(await charges(target)).toHaveLength(25);
      await catchUp(run, last);
      expect(await charges(target)).toHaveLength(26);
      expect(await waiveHours(run.bank, first)).toBe(375);
      expect((await forgotten())?.forgotten).toBe(0);
      await catchUp(run, first);
      expect(await charges(target)).toHaveLength(26);
    });

    test("an account whose row another session holds gets its turn at the end", async () => {
      await awayFromTheHour();
      const target = await postgres.createDatabase();
      for (const account of ["u1", "u2", "u3"]) {
        await setBalance(target, account, 100);
        await addPins(target, account, 10 * GIB);
      }
      const run = runOn(target, { batchSize: 1 });
      await inSession(target, async (client) => {
        await client.query("BEGIN");
        await client.query("SELECT FROM user_credits WHERE user_id = 'u1' FOR UPDATE");
        const running = runDeduction(run);
        await until("the others are charged", async () => (await charges(target)).length === 2);
        await client.query("ROLLBACK");
        await running;
      });
      expect(await charges(target)).toEqual(["u1 0", "u2 0", "u3 0"]);
    });

    test("an hour that another program charges at the same moment is charged once", async () => {
      await awayFromTheHour();
      const target = await postgres.createDatabase();
      await setBalance(target, "u1", 100);
      await addPins(target, "u1", 10 * GIB);
      await inSession(target, async (client) => {
        // As upstream's image does it, which has no lock on the history before that.
        await client.query("BEGIN");
        await client.query("SELECT FROM user_credits WHERE user_id = 'u1' FOR UPDATE");
        const running = runDeduction(runOn(target));
        await until("the run waits", async () => {
          const waiting = await sql(
            target,
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
          );
          return waiting.length > 0;
        });
        await client.query(
          `INSERT INTO credit_history (user_id, tx_type, amount_fula, balance_after, reference_id)
           SELECT 'u1', 'hourly_deduction', -1, 99, 'hour:' || to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24')`,
        );
        await client.query("UPDATE user_credits SET balance_fula = 99 WHERE user_id = 'u1'");
        await client.query("COMMIT");
        expect(await running).toMatchObject({ hours: [{ charged: 0, amount: "0" }] });
      });
      expect(await charges(target)).toEqual(["u1 0"]);
      expect(await sql(target, "SELECT balance_fula AS balance FROM user_credits")).toEqual([
        { balance: 99 },
      ]);
    });

    test("charges and credits that race lose nothing", async () => {
      const target = await postgres.createDatabase();
      await setBalance(target, "u1", 100_000);
      await addPins(target, "u1", 10 * GIB);
      await lastBilled(target, 101);
      const run = runOn(target);
      const credit = async (n: number) =>
        adjustCredit(run.bank, { account: "u1", amount: "1", reason: "r", key: `k${n}`, actor: "a" });
      const credits = async () => {
        for (let n = 0; n < 200; n += 4) await Promise.all([n, n + 1, n + 2, n + 3].map(credit));
      };
      await Promise.all([catchUp(run, "2000-01-01T00:00Z"), credits()]);
      expect(inUnits((await moneyOf(target, "u1")).balance)).toBe(
        100_200n * 10n ** 18n - 100n * unitsOf(10 * GIB),
      );
    });

    test("a run takes so many statements for a batch, however many accounts are in it", async () => {
      await awayFromTheHour();
      const statementsFor = async (count: number, batchSize: number): Promise<number> => {
        const target = await postgres.createDatabase();
        await addAccounts(target, count);
        const run = runOn(target, { batchSize });
        let statements = 0;
        const counted = (database: Pick<typeof run.bank, "query">): (typeof run.bank)["query"] => {
          return (...statement) => {
            statements += 1;
            return database.query(...statement);
          };
        };
        const bank = {
          query: counted(run.bank),
          transaction: ((work) =>
            run.bank.transaction((database) =>
              work({ query: counted(database) }),
            )) as typeof run.bank.transaction,
        };
        const { hours } = await runDeduction({ ...run, bank });
        expect(hours).toMatchObject([{ charged: count, failed: 0 }]);
        return statements;
      };
      const few = await statementsFor(20, 10);
      expect(await statementsFor(2_000, 1_000)).toBe(few);
      expect(few).toBeLessThan(25);
    });

    test("balances at the edges of a REAL: charged exactly, or put aside; nobody else is stopped", async () => {
      await awayFromTheHour();
      const target = await postgres.createDatabase();
      const edges = {
        largest: "3.4028235e38",
        lowest: "-3.4028235e38",
        smallest: "1.4e-45",
        "minus-zero": "-0",
        "over-the-range": "1.1e30",
        "in-the-range": "1e29",
        "whole-numbers-end": "16777216",
        usual: "100",
      };
      for (const [account, balance] of Object.entries(edges)) {
        await setBalance(target, account, balance);
        await addPins(target, account, 10 * GIB);
      }
      await runDeduction(runOn(target));
      const aside = await sql<{ account: string }>(target, "SELECT account FROM failed_charges ORDER BY 1");
      expect(aside.map(({ account }) => account)).toEqual(["largest", "lowest", "over-the-range"]);
      expect(await charges(target)).toEqual(
        ["in-the-range 0", "minus-zero 0", "smallest 0", "usual 0", "whole-numbers-end 0"].toSorted(
          oldestFirst,
        ),
      );
      const fee = unitsOf(10 * GIB);
      for (const [account, whole] of [
        ["in-the-range", 10n ** 29n],
        ["whole-numbers-end", 16_777_216n],
        ["minus-zero", 0n],
      ] as const)
        expect(inUnits((await moneyOf(target, account)).balance)).toBe(whole * 10n ** 18n - fee);
      const [row] = await sql<{ wrong: number }>(
        target,
        `SELECT count(*)::int AS wrong FROM user_credits c JOIN exact_credits e ON e.account = c.user_id
         WHERE c.balance_fula IS DISTINCT FROM e.balance::real`,
      );
      expect(row?.wrong).toBe(0);
    });

    test.each(["NaN", "Infinity", "-Infinity", "1.1e30"])(
      "a balance of %s: the failed charge says it in words, and a credit by the operator counts from the last exact one",
      async (broken) => {
        await awayFromTheHour();
        const target = await postgres.createDatabase();
        for (const account of ["known", "new"]) await addPins(target, account, 10 * GIB);
        const run = runOn(target);
        await sql(target, "SELECT change_credits('known', 7.123456789, 0, 0, false)");
        await sql(target, "INSERT INTO user_credits (user_id) VALUES ('new')");
        await sql(target, "UPDATE user_credits SET balance_fula = $1::real", [broken]);
        expect(await runDeduction(run)).toMatchObject({ hours: [{ charged: 0, failed: 2 }] });
        const [{ reason } = { reason: "" }] = await sql<{ reason: string }>(
          target,
          "SELECT reason FROM failed_charges WHERE account = 'known'",
        );
        expect(reason).toMatch(/^the balance of known is not an amount .*fula-node user credit/);
        expect(run.lines.join("\n")).toMatch(/warn deduction: the charge of known for .* not an amount/);
        const credit = (account: string) =>
          adjustCredit(run.bank, { account, amount: "1", reason: "r", key: account, actor: "me" });
        expect(await credit("known")).toMatchObject({
          outcome: "adjusted",
          balanceFula: 8.123456789,
          replaced: { balance: "7.123457" },
        });
        expect(await credit("new")).toMatchObject({ outcome: "adjusted", balanceFula: 1 });
        expect(await credit("new")).toMatchObject({ outcome: "already", isSame: true });
        expect(await sql(target, "SELECT action, target_id FROM admin_audit_log ORDER BY id")).toEqual([
          { action: "replace balance", target_id: "known" },
          { action: "credit", target_id: "known" },
          { action: "replace balance", target_id: "new" },
          { action: "credit", target_id: "new" },
        ]);
        await runDeduction(run);
        expect(await charges(target)).toEqual(["known 0", "new 0"]);
      },
    );

    test("an account below zero that somebody unsuspended is suspended again, and pays nothing; at zero it pays once", async () => {
      await awayFromTheHour();
      const target = await postgres.createDatabase();
      for (const [account, balance] of [
        ["below", -1],
        ["zero", 0],
      ] as const) {
        await setBalance(target, account, balance);
        await addPins(target, account, 10 * GIB);
      }
      await lastBilled(target, 2);
      const run = runOn(target);
      expect((await previewDeduction(run, null)).map(({ accounts }) => accounts)).toEqual([1, 1]);
      for (let n = 0; n < 2; n += 1) {
        await runDeduction(run);
        expect(await charges(target)).toEqual(["zero 1"]);
        expect(await sql(target, "SELECT FROM user_credits WHERE is_suspended = 1")).toHaveLength(2);
        // As `user unsuspend` does it.
        await sql(target, "UPDATE user_credits SET is_suspended = 0, suspended_at = NULL");
      }
    });

    test("an hour has one price: that of the run that began it", async () => {
      await awayFromTheHour();
      const target = await postgres.createDatabase();
      await setBalance(target, "u1", 100);
      await addPins(target, "u1", 10 * GIB);
      const run = runOn(target);
      await runDeduction(run);
      await setBalance(target, "u2", 100);
      await addPins(target, "u2", 10 * GIB);
      const dearer = { ...run, tariff: { freeBytes: "0", unitsPerGibMonth: `9${"0".repeat(18)}` } };
      const [preview] = await previewDeduction(dearer, null);
      await runDeduction(dearer);
      const taken = async (account: string) => inUnits((await moneyOf(target, account)).deducted);
      expect(await taken("u2")).toBe(await taken("u1"));
      expect(inUnits(preview?.fula ?? "")).toBe(await taken("u1"));
      expect(
        await sql(target, "SELECT free_bytes::text, fula_per_gib_month::text FROM billing_hours"),
      ).toEqual([{ free_bytes: String(PRICING.freeTierBytes), fula_per_gib_month: "3" }]);
    });

    test("one account that the database refuses stops nobody else, and is tried again", async () => {
      await awayFromTheHour();
      const target = await postgres.createDatabase();
      for (let n = 10; n < 30; n += 1) {
        await setBalance(target, `u${n}`, n === 13 ? "NaN" : n === 17 ? "Infinity" : 100);
        await addPins(target, `u${n}`, 10 * GIB);
      }
      await sql(
        target,
        `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON user_credits FOR EACH ROW WHEN (NEW.user_id = 'u21') EXECUTE FUNCTION refuse()`,
      );
      const run = runOn(target);
      const report = await runDeduction(run);
      expect(report.hours).toMatchObject([{ charged: 17, failed: 3 }]);
      const failed = async () => sql(target, "SELECT account, tries FROM failed_charges ORDER BY account");
      expect(await failed()).toEqual([
        { account: "u13", tries: 1 },
        { account: "u17", tries: 1 },
        { account: "u21", tries: 1 },
      ]);
      await sql(target, "DROP TRIGGER refuse ON user_credits");
      await sql(target, "UPDATE user_credits SET balance_fula = 100 WHERE user_id = 'u13'");
      await runDeduction(run);
      expect(await failed()).toEqual([{ account: "u17", tries: 2 }]);
      expect(await charges(target)).toHaveLength(19);
    });
  },
  { template: migrate },
);

/** In the order of `charges`. */
function oldestFirst(one: string, other: string): number {
  const [a = "", hoursA = ""] = one.split(" ");
  const [b = "", hoursB = ""] = other.split(" ");
  return a.localeCompare(b) || Number(hoursB) - Number(hoursA);
}
