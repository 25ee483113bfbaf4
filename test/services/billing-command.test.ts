import { expect, test } from "vitest";
import { judgeBilling, readStanding } from "../../src/billing/runs.ts";
import { billingCatchUp, billingRun, billingRuns } from "../../src/commands/billing/billing.ts";
import { lookAtBilling } from "../../src/status/billing-part.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { createPostgres } from "../../src/database/postgres.ts";
import { addPins, awayFromTheHour, charges, GIB, lastBilled, setBalance } from "../support/billing.ts";
import { migrate, poolOf } from "../support/names-database.ts";
import type { World } from "../../src/world.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { masterOn } from "./verbs-master.ts";

const VAULT = `0x${"1".repeat(40)}`;
const ON = { VAULT_ADDRESS: VAULT, JWT_SECRET: "jwt-secret-of-the-test", ENCRYPTION_KEY: "ab".repeat(32) };

describeOnPostgres(
  "billing",
  (postgres) => {
    async function start() {
      await awayFromTheHour();
      const target = await postgres.createDatabase();
      const { baseDir, world, results } = await masterOn(target, ON);
      return { target, baseDir, world, last: () => results.at(-1) };
    }

    /** What `status` says, and the judgement for other settings. */
    async function statusOf(target: PostgresTarget, more: Readonly<Record<string, string>> = {}) {
      const values: Readonly<Record<string, string>> = {
        VAULT_ADDRESS: VAULT,
        CRON_LEADER_LEASE: "true",
        BILLING_IDEMPOTENCY: "true",
        POSTGRES_HOST: target.host,
        POSTGRES_PORT: String(target.port),
        POSTGRES_DB: target.database,
        POSTGRES_USER: target.user,
        POSTGRES_PASSWORD: target.password,
        ...more,
      };
      return lookAtBilling(
        { postgres: createPostgres() },
        { values: (key) => values[key], ask: (question) => question() },
      );
    }

    test("run shows first, then charges; runs lists the hours", async () => {
      const { target, baseDir, world, last } = await start();
      await setBalance(target, "u1", 100);
      await addPins(target, "u1", 10.5 * GIB);
      await lastBilled(target, 2);
      expect(await billingRun({ baseDir, dryRun: true }, world)).toBe("pending");
      expect(last()?.data).toMatchObject({ dryRun: true, hours: [{ accounts: 1 }, { accounts: 1 }] });
      expect(last()?.lines.join("\n")).toMatch(
        /2 hours of 2 would be charged:\n.*1 account +at most 0\.0417\d+ FULA/,
      );
      expect(await charges(target)).toEqual([]);
      expect(await billingRun({ baseDir, dryRun: false }, world)).toBe("ok");
      expect(await charges(target)).toEqual(["u1 1", "u1 0"]);
      // Nobody runs the billing here.
      expect(await billingRun({ baseDir, dryRun: true }, world)).toBe("pending");
      expect(last()?.lines).toEqual([
        "Nothing to charge in 1 hour.",
        "By itself, nothing is charged: no master runs it.",
      ]);
      await billingRuns({ baseDir, limit: "2" }, world);
      expect(last()?.data).toMatchObject({
        hours: [
          { state: "billed", charged: 1 },
          { state: "billed", charged: 1 },
        ],
        failures: [],
      });
      const [row] = await sql<{ same: boolean }>(
        target,
        "SELECT (SELECT sum(amount) FROM billing_hours) = deducted AS same FROM exact_credits",
      );
      expect(row).toEqual({ same: true });
    });

    test("every screen fits 80 columns, says what failed, and what to do", async () => {
      const { target, baseDir, world, last } = await start();
      const long = "ab".repeat(32);
      await setBalance(target, long, "NaN");
      await setBalance(target, "u1", "0.01");
      for (const account of [long, "u1"]) await addPins(target, account, 98_765 * GIB);
      await lastBilled(target, 2);
      const screen = () => {
        const lines = last()?.lines ?? [];
        expect(lines.filter((line) => line.length > 80)).toEqual([]);
        expect(lines.filter((line) => line.trim() === "")).toEqual([]);
        return lines.join("\n");
      };
      expect(await billingRun({ baseDir, dryRun: true }, world)).toBe("pending");
      screen();
      expect(await billingRun({ baseDir, dryRun: false }, world)).toBe("pending");
      expect(screen()).toMatch(/1 account +411\.5\d+ FULA\s+1 suspended, 1 failed\n/);
      expect(await billingRuns({ baseDir }, world)).toBe("pending");
      const runs = screen();
      expect(runs).toMatch(
        /^Billing: no master runs it\. Do: fula-node join-as-master, then docker logs\nfula-pinning-webui/,
      );
      expect(runs).toMatch(new RegExp(`Z\\s+${long}\\s+for\\s+411\\.5\\d+\\s+FULA,\\s+tried\\s+1\\s+time:`));
      await expect(billingRuns({ baseDir, limit: "0" }, world)).rejects.toMatchObject({
        exit: "usage",
        remedy: "Pass a number of hours, such as --limit 24.",
      });
      await sql(target, "DELETE FROM user_credits WHERE user_id = 'u1'");
      await sql(target, "DELETE FROM pins WHERE user_id = 'u1'");
      expect(await billingRun({ baseDir, dryRun: false }, world)).toBe("pending");
      expect(screen()).toMatch(
        /^Nothing was charged, because charges failed:\n.*\n2 charges of earlier failed again\./,
      );
      const off = await masterOn(target, { ...ON, BILLING_IDEMPOTENCY: "false" });
      expect(await billingRuns({ baseDir: off.baseDir }, off.world)).toBe("pending");
      expect(off.results.at(-1)?.data).toMatchObject({
        off: "Nothing is billed: BILLING_IDEMPOTENCY is false.",
      });
      expect(off.results.at(-1)?.lines[0]).toBe("Nothing is billed: BILLING_IDEMPOTENCY is false.");
    });

    test("catch-up shows, charges or waives what was missed long ago", async () => {
      const { target, baseDir, world, last } = await start();
      await setBalance(target, "u1", 100);
      await addPins(target, "u1", 10 * GIB);
      await lastBilled(target, 50);
      const [{ since } = { since: "" }] = await sql<{ since: string }>(
        target,
        `SELECT to_char((date_trunc('hour', now(), 'UTC') - interval '26 hours') AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"') AS since`,
      );
      await billingRun({ baseDir, dryRun: false }, world);
      expect(await charges(target)).toHaveLength(25);
      await billingRuns({ baseDir, limit: "30" }, world);
      expect(
        (last()?.data as { hours: { state: string }[] } | undefined)?.hours.map(({ state }) => state),
      ).toEqual([
        ...Array.from({ length: 25 }, () => "billed"),
        ...Array.from({ length: 5 }, () => "missed"),
      ]);
      expect(await statusOf(target, { CRON_LEADER_LEASE: "false" })).toMatchObject({
        state: "attention",
        summary: expect.stringMatching(
          /^25 hours since \d{4}-\d\d-\d\dT\d\d:00Z were never billed$/,
        ) as string,
        todo: expect.stringMatching(/^fula-node billing catch-up --dry-run --since \S+$/) as string,
      });
      expect(await billingCatchUp({ baseDir, since, dryRun: true }, world)).toBe("pending");
      expect(await charges(target)).toHaveLength(25);
      const asked: string[] = [];
      const answering = (answer: boolean) => ({
        ...world,
        questions: { confirm: async (question: string) => asked.push(question) > 0 && answer },
      });
      for (const waive of [false, true]) {
        await expect(
          billingCatchUp({ baseDir, since, waive, dryRun: false }, { ...world, questions: null }),
        ).rejects.toMatchObject({ exit: "preflight", remedy: expect.stringContaining("--yes") as string });
        await expect(
          billingCatchUp({ baseDir, since, waive, dryRun: false }, answering(false) as unknown as World),
        ).rejects.toMatchObject({ exit: "pending" });
      }
      expect(asked[0]).toMatch(
        /^2 missed hours with 2 charges of at most 0\.079\d+ FULA in all will be charged now\. Go on\?$/,
      );
      expect(asked[1]).toContain("will never be charged.");
      expect(await charges(target)).toHaveLength(25);
      expect(await sql(target, "SELECT FROM admin_audit_log")).toEqual([]);
      expect(
        await billingCatchUp({ baseDir, since, dryRun: false }, answering(true) as unknown as World),
      ).toBe("ok");
      expect(await charges(target)).toHaveLength(27);
      await billingCatchUp(
        { baseDir, since: "2000-01-01T00Z", waive: true, dryRun: false, yes: true },
        world,
      );
      expect(last()?.data).toMatchObject({ waived: 23 });
      const audited = await sql<{ action: string; actor: string; details: { hours: unknown[] } }>(
        target,
        "SELECT action, actor, details FROM admin_audit_log ORDER BY id",
      );
      expect(audited).toMatchObject([
        {
          action: "catch-up",
          actor: "root@m1",
          details: { since, hours: [{ hour: since, charged: 1 }, { charged: 1 }] },
        },
        { action: "waive hours", actor: "root@m1", details: { waived: 23 } },
      ]);
      expect(audited[1]?.details.hours).toHaveLength(23);
      await billingCatchUp({ baseDir, since: "2000-01-01T00Z", dryRun: false }, world);
      expect(await charges(target)).toHaveLength(27);
      expect(await statusOf(target, { CRON_LEADER_LEASE: "false" })).toMatchObject({ state: "ok" });
      for (const wrong of ["yesterday", "2026-02-30T00Z", "2026-01-31T12:30Z", "2026-01-31T12:00"])
        await expect(billingCatchUp({ baseDir, since: wrong, dryRun: true }, world)).rejects.toMatchObject({
          exit: "usage",
        });
    });

    test.each([
      ["VAULT_ADDRESS is not set", { ...ON, VAULT_ADDRESS: "" }],
      ["VAULT_ADDRESS is the zero address", { ...ON, VAULT_ADDRESS: `0x${"0".repeat(40)}` }],
      ["BILLING_IDEMPOTENCY is false", { ...ON, BILLING_IDEMPOTENCY: "false" }],
    ])("nothing is charged if %s", async (_, secrets) => {
      const target = await postgres.createDatabase();
      await setBalance(target, "u1", 100);
      await addPins(target, "u1", 10 * GIB);
      const { baseDir, world } = await masterOn(target, secrets);
      for (const dryRun of [true, false])
        await expect(billingRun({ baseDir, dryRun }, world)).rejects.toMatchObject({
          exit: "settings",
          what: "This master bills nothing.",
        });
      expect(await charges(target)).toEqual([]);
    });

    test("status says who leads and since when, what was billed last, and what is late or failed", async () => {
      await awayFromTheHour();
      const target = await postgres.createDatabase();
      expect(await statusOf(target, { VAULT_ADDRESS: "" })).toBeNull();
      expect(await statusOf(target, { WEBUI_IMAGE: "example.org/webui:1" })).toBeNull();
      expect(await statusOf(target, { BILLING_IDEMPOTENCY: "false" })).toMatchObject({ state: "attention" });
      expect(await statusOf(target)).toMatchObject({ state: "attention", summary: "no master runs it" });
      const lead = (seconds: number) =>
        sql(
          target,
          `INSERT INTO cron_lease (name, generation, holder, pid, backend_start, acquired_at, heartbeat_at)
           VALUES ('billing', 1, 'm1', 1, now(), '2026-01-31T12:00Z', now() - $1 * interval '1 s')
           ON CONFLICT (name) DO UPDATE SET heartbeat_at = excluded.heartbeat_at`,
          [seconds],
        );
      await lead(5);
      await lastBilled(target, 1);
      const { lastHour } = (await readStanding(poolOf(target), 24)) ?? {};
      expect(await statusOf(target)).toMatchObject({
        state: "ok",
        summary: expect.stringMatching(
          new RegExp(
            `^run by m1 since 2026-01-31 12:00 UTC, last billed hour: ${lastHour?.slice(0, 10)} ${lastHour?.slice(11, 16)} to \\d\\d:00 UTC$`,
          ),
        ) as string,
      });
      await lead(300);
      expect(await statusOf(target)).toMatchObject({
        state: "attention",
        summary: "m1 should run it, and is silent for 300 s",
      });
      await lead(0);
      await sql(target, "UPDATE billing_hours SET hour = hour - interval '3 hours'");
      expect(await statusOf(target)).toMatchObject({
        state: "attention",
        summary: expect.stringMatching(
          /but late: the last billed hour is \S+Z; 3 hours are not charged yet$/,
        ) as string,
        evidence: { "hours not charged yet": "3", "hours not billed": "0" },
      });
      await lead(300);
      expect(await statusOf(target)).toMatchObject({
        summary: "m1 should run it, and is silent for 300 s; 3 hours are not charged yet",
      });
      await lead(0);
      await sql(target, "UPDATE billing_hours SET hour = hour + interval '1 hour'");
      // The next run of a leader that has just begun is not late.
      await sql(target, "UPDATE cron_lease SET acquired_at = now()");
      expect(await statusOf(target)).toMatchObject({
        state: "ok",
        summary: expect.stringMatching(/; 2 hours are not charged yet$/) as string,
      });
      // A run goes back 24 hours: what is older is in the other number.
      await sql(target, "UPDATE billing_hours SET hour = hour - interval '37 hours'");
      expect(await statusOf(target)).toMatchObject({
        evidence: { "hours not charged yet": "24", "hours not billed": "15" },
      });
      await sql(target, "UPDATE billing_hours SET hour = hour + interval '36 hours'");
      await sql(target, "UPDATE cron_lease SET acquired_at = '2026-01-31T12:00Z'");
      await sql(target, "UPDATE billing_hours SET hour = hour + interval '3 hours'");
      await sql(target, "INSERT INTO failed_charges VALUES (now(), 'a', 1, 'out of range')");
      expect(await statusOf(target)).toMatchObject({
        state: "attention",
        summary: "1 charge failed, of one account and hour each",
      });
      expect(await statusOf({ ...target, password: "wrong" })).toMatchObject({
        state: "unknown",
        summary: "the database can't be read",
      });
    });

    test("upstream's image that holds the lease is no fault", () => {
      const standing = {
        leader: null,
        since: null,
        silentSeconds: 0,
        isElsewhere: true,
        lastHour: null,
        sinceLastHour: null,
        leadingSeconds: 0,
        failures: 0,
        behind: 0,
        forgotten: 0,
        firstForgotten: null,
        numbered: "credit_history",
        numberTaken: false,
        numbersUsed: 0.1,
        numbersLastHours: null,
        clockFault: null,
      };
      expect(judgeBilling(standing, { lease: true, deductionIntervalMs: 3_600_000 }).state).toBe("ok");
      expect(
        judgeBilling({ ...standing, isElsewhere: false }, { lease: true, deductionIntervalMs: 1_000 }).state,
      ).toBe("attention");
    });
  },
  { template: migrate },
);
