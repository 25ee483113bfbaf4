import { HOURS_BACK } from "../../billing/deduction.ts";
import { DUE_HOURS } from "../../billing/deduction-sql.ts";
import type { PostgresPool } from "../../database/postgres.ts";
import type { BillingSettings } from "../../settings/billing.ts";
import { countOf } from "../../units.ts";

type Database = Pick<PostgresPool, "query">;

const GIB = 1_073_741_824;

/** What the accounts of a drill pay: the prices of upstream, so that every fee has many digits. */
export const DRILL_PRICING = { freeTierBytes: 524_288_000, fulaPerGibMonth: 3 };

/** The billing of a drill. Its crons run all the time, and ask no chain unless it gives them one. */
export const DRILL_BILLING: BillingSettings = {
  lease: true,
  idempotent: true,
  deductionIntervalMs: 300,
  scannerIntervalMs: 300,
  vault: `0x${"d1".repeat(20)}`,
  chains: [],
  proxy: null,
  bonuses: true,
};

/** What each account has at first. A REAL has it exactly. */
const BALANCE = 128;

/** Accounts of a scratch database, and the hours for which they have to pay. */
export interface ScratchAccounts {
  readonly count: number;
  /** The references of their charges, the oldest hour first. */
  readonly hours: readonly string[];
}

/** The name of an account: in the order of their numbers. */
export function accountName(n: number): string {
  return `drill-account-${String(n).padStart(4, "0")}`;
}

/**
 * Makes accounts with pins, as if the billing had last run so many hours before the current one: these hours and the current
 * one are due.
 */
export async function addAccounts(
  database: Database,
  { count, missedHours }: { readonly count: number; readonly missedHours: number },
): Promise<ScratchAccounts> {
  await database.query(ADD_PINS, [count, DRILL_PRICING.freeTierBytes, GIB]);
  await database.query(ADD_BALANCES, [count, BALANCE]);
  await database.query(LAST_BILLED, [missedHours + 1]);
  const due = await database.query<{ reference: string }>(DUE_HOURS, [HOURS_BACK]);
  return { count, hours: due.map(({ reference }) => reference) };
}

const NAMES = `SELECT n, 'drill-account-' || lpad(n::text, 4, '0') AS account FROM generate_series(1, $1::integer) AS n`;

/** Of days ago, so that they were there during every missed hour; no two accounts have the same size. */
const ADD_PINS = `
  INSERT INTO pins (requestid, user_id, cid, status, size, created_at, updated_at)
    SELECT account, account, account, 'pinned', $2::bigint + n * $3::bigint + n, now() - interval '3 days', now() - interval '3 days'
    FROM (${NAMES}) AS names`;

const ADD_BALANCES = `
  INSERT INTO user_credits (user_id, balance_fula) SELECT account, $2::real FROM (${NAMES}) AS names`;

const LAST_BILLED = `
  INSERT INTO billing_hours (hour, finished_at)
    VALUES (date_trunc('hour', now(), 'UTC') - $1::integer * interval '1 hour', now())`;

/** How many of the hours a run has finished. */
export async function finishedHours(database: Database, { hours }: ScratchAccounts): Promise<number> {
  const [row] = await database.query<{ finished: number }>(
    `SELECT count(*)::integer AS finished FROM billing_hours
     WHERE finished_at IS NOT NULL AND 'hour:' || to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24') = ANY ($1::text[])`,
    [hours],
  );
  return row?.finished ?? 0;
}

/** How many charges of an hour are there. */
export async function chargesOf(database: Database, hour: string): Promise<number> {
  const [row] = await database.query<{ charges: number }>(
    "SELECT count(*)::integer AS charges FROM credit_history WHERE tx_type = 'hourly_deduction' AND reference_id = $1",
    [hour],
  );
  return row?.charges ?? 0;
}

interface Bill extends Record<string, unknown> {
  readonly charges: number;
  readonly missing: number;
  readonly first_missing: string | null;
  readonly doubled: number;
  readonly first_doubled: string | null;
  readonly failed: number;
  readonly wrong: number;
  readonly first_wrong: string | null;
}

/** What of the charges is not right, one clause each. None: each account has paid each hour exactly once, and the exact fee. */
export async function billFaults(
  database: Database,
  { count, hours }: ScratchAccounts,
): Promise<{ readonly charges: number; readonly faults: string[] }> {
  const [bill] = await database.query<Bill>(BILL, [
    count,
    hours,
    BALANCE,
    DRILL_PRICING.freeTierBytes,
    DRILL_PRICING.fulaPerGibMonth,
  ]);
  if (bill === undefined) throw new TypeError("an aggregate has a row");
  const { charges, missing, doubled, failed, wrong } = bill;
  const faults = [
    doubled > 0
      ? `${countOf(doubled, "hour")} of an account ${doubled === 1 ? "was" : "were"} charged more than once, first ${bill.first_doubled}`
      : null,
    missing > 0
      ? `${countOf(missing, "charge")} ${missing === 1 ? "is" : "are"} missing, first ${bill.first_missing}`
      : null,
    failed > 0 ? `${countOf(failed, "charge")} ${failed === 1 ? "was" : "were"} put aside as failed` : null,
    wrong > 0
      ? `the balance of ${countOf(wrong, "account")} is not what the charges leave, first ${bill.first_wrong}`
      : null,
  ].filter((fault) => fault !== null);
  return { charges, faults };
}

/**
 * $1 accounts, $2 references of hours, $3 their balance at first, $4 free bytes, $5 price. The fee is computed here in another
 * way than the billing does, from the size of the pins.
 */
const BILL = `
  WITH accounts AS MATERIALIZED (${NAMES}), lines AS MATERIALIZED (
    SELECT user_id AS account, reference_id AS hour, count(*)::integer AS times
    FROM credit_history WHERE tx_type = 'hourly_deduction' GROUP BY 1, 2
  ), missing AS (
    SELECT account, hour FROM accounts CROSS JOIN unnest($2::text[]) AS hour
      EXCEPT SELECT account, hour FROM lines
  ), doubled AS (
    SELECT account, hour, times FROM lines WHERE times > 1
  ), due AS (
    SELECT account, (price - price % gib_hours) / gib_hours * 1e-18 AS fee
    FROM pins p JOIN accounts ON account = p.user_id
      CROSS JOIN LATERAL (SELECT (p.size - $4::numeric) * $5::numeric * 1e18 AS price, 1073741824 * 720::numeric AS gib_hours) AS f
  ), wrong AS (
    SELECT due.account FROM due
      LEFT JOIN (SELECT account, sum(times) AS times FROM lines GROUP BY 1) AS paid USING (account)
      LEFT JOIN exact_credits e USING (account)
    WHERE e.balance IS DISTINCT FROM $3::numeric - due.fee * coalesce(paid.times, 0)
  )
  SELECT (SELECT coalesce(sum(times), 0)::integer FROM lines) AS charges,
    (SELECT count(*)::integer FROM missing) AS missing, (SELECT min(account || ' ' || hour) FROM missing) AS first_missing,
    (SELECT count(*)::integer FROM doubled) AS doubled, (SELECT min(account || ' ' || hour) FROM doubled) AS first_doubled,
    (SELECT count(*)::integer FROM failed_charges) AS failed,
    (SELECT count(*)::integer FROM wrong) AS wrong, (SELECT min(account) FROM wrong) AS first_wrong`;
