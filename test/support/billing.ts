import type { PostgresPool } from "../../src/database/postgres.ts";
import { tariffOf } from "../../src/billing/fee.ts";
import { BATCH_SIZE, type Deduction } from "../../src/billing/deduction.ts";
import type { BillingSettings } from "../../src/settings/billing.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { until } from "./migrations.ts";
import { inSession, sql } from "./postgres-server.ts";
import { poolOf } from "./names-database.ts";

export const GIB = 1024 ** 3;

/** Upstream's: 500 MiB are free, and a GiB costs 3 FULA a month. */
export const PRICING = { freeTierBytes: 500 * 1024 ** 2, fulaPerGibMonth: 3 };

/** A master that bills, and scans no chain. */
export const BILLING: BillingSettings = {
  lease: true,
  idempotent: true,
  deductionIntervalMs: 3_600_000,
  scannerIntervalMs: 600_000,
  vault: `0x${"1a".repeat(20)}`,
  chains: [],
  proxy: null,
  bonuses: true,
};

/** A run on a pool of its own. */
export function runOn(
  target: PostgresTarget,
  more: Partial<Deduction> = {},
): Deduction & { readonly lines: string[]; readonly bank: PostgresPool } {
  const lines: string[] = [];
  return {
    tariff: tariffOf(PRICING),
    log: (line, level) => void lines.push(level === undefined ? line : `${level} ${line}`),
    batchSize: BATCH_SIZE,
    lines,
    ...more,
    bank: poolOf(target),
  };
}

/** The fee of an hour in units of 10^-18 FULA, computed apart from the code: (bytes - tier) / GiB * 3 / 720, rounded down. */
export function unitsOf(bytes: number): bigint {
  const over = BigInt(Math.max(0, bytes - PRICING.freeTierBytes));
  return (over * 3n * 10n ** 18n) / (BigInt(GIB) * 720n);
}

/** A decimal number of FULA in units of 10^-18. */
export function inUnits(text: string): bigint {
  const [, sign = "", whole = "0", digits = ""] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text) ?? [];
  const units = BigInt(whole + digits.padEnd(18, "0").slice(0, 18));
  return sign === "-" ? -units : units;
}

/** The pins of an account: created so many hours before the current one began, or now. */
export async function addPins(
  target: PostgresTarget,
  account: string,
  bytes: number,
  {
    hoursAgo = 1_000,
    deleted = false,
  }: { readonly hoursAgo?: number | null; readonly deleted?: boolean } = {},
): Promise<void> {
  await sql(
    target,
    `INSERT INTO pins (requestid, user_id, cid, status, size, created_at, updated_at)
     VALUES (gen_random_uuid(), $1, 'c', $2, $3,
       CASE WHEN $4::integer IS NULL THEN now() ELSE ${HOUR} - $4::integer * interval '1 hour' END, now())`,
    [account, deleted ? "deleted" : "pinned", bytes, hoursAgo],
  );
}

const HOUR = "date_trunc('hour', now(), 'UTC')";

/** As if the billing had last finished the hour so many hours before the current one. */
export async function lastBilled(target: PostgresTarget, hoursAgo: number): Promise<void> {
  await sql(
    target,
    `INSERT INTO billing_hours (hour, finished_at) VALUES (${HOUR} - $1::integer * interval '1 hour', now())`,
    [hoursAgo],
  );
}

/** A balance as upstream's image writes it, or as it is after a suspension. */
export async function setBalance(
  target: PostgresTarget,
  account: string,
  balance: number | string,
  suspendedHoursAgo: number | null = null,
): Promise<void> {
  await sql(
    target,
    `INSERT INTO user_credits (user_id, balance_fula, is_suspended, suspended_at)
     VALUES ($1, $2::real, $3, ${HOUR} - $4::integer * interval '1 hour')`,
    [account, balance, suspendedHoursAgo === null ? 0 : 1, suspendedHoursAgo],
  );
}

/** The charges as `ACCOUNT HOURS-AGO`, in the order of the accounts, the oldest hour first. */
export async function charges(target: PostgresTarget): Promise<readonly string[]> {
  const rows = await sql<{ line: string }>(
    target,
    `SELECT user_id || ' ' || extract(epoch FROM ${HOUR} - (substr(reference_id, 6) || ':00Z')::timestamptz)::int / 3600 AS line
     FROM credit_history WHERE tx_type = 'hourly_deduction' ORDER BY user_id, reference_id`,
  );
  return rows.map(({ line }) => line);
}

/** Waits for the next hour if this one ends within a minute: the test then has one current hour. */
export async function awayFromTheHour(): Promise<void> {
  const minute = () => Math.floor(Date.now() / 60_000) % 60;
  await until("the hour turns", async () => minute() !== 59, 70_000);
}

/** Many accounts with one pin each, above the free tier, and a balance; without the triggers, which are slow for that. */
export async function addAccounts(
  target: PostgresTarget,
  count: number,
  balance = "100000 + n",
): Promise<void> {
  await inSession(target, async (client) => {
    await client.query("SET session_replication_role = replica");
    await client.query(
      `INSERT INTO account_usage (account, bytes)
       SELECT encode(sha256(n::text::bytea), 'hex'), 500 * 1048576 + n::numeric * 65536 FROM generate_series(1, $1::integer) AS n`,
      [count],
    );
    await client.query(
      `INSERT INTO user_credits (user_id, balance_fula)
       SELECT encode(sha256(n::text::bytea), 'hex'), ${balance} FROM generate_series(1, $1::integer) AS n`,
      [count],
    );
  });
  await sql(target, "ANALYZE account_usage");
  await sql(target, "ANALYZE user_credits");
}
