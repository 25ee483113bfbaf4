import { codeOfServer, isNoAmount, lacksRowNumbers } from "../database/connection-fault.ts";
import { type Log, messageOf } from "../errors.ts";
import { countOf } from "../units.ts";
import {
  ADD_MISSING,
  BEGIN_HOUR,
  BY_INDEX,
  chargeSql,
  COUNT_BATCH,
  DUE_HOURS,
  FAILURES,
  FINISH_HOUR,
  FORGET_FAILURE,
  HOUR_TARIFF,
  lockSql,
  MISSED_HOURS,
  NOTE_FAILURES,
  pageSql,
  previewSql,
  RESUME,
  WAIVE,
} from "./deduction-sql.ts";
import { refuseWrongClock, wallClockMs } from "./clocks.ts";
import type { Tariff } from "./fee.ts";
import type { Bank } from "./lease.ts";

/** How many hours back a run charges unasked. More only by `billing catch-up`. */
export const HOURS_BACK = 24;

/** What a run needs. */
export interface Deduction {
  readonly bank: Bank;
  readonly tariff: Tariff;
  readonly log: Log;
  /** Ends the run between two batches. */
  readonly stop?: AbortSignal;
  /** How many accounts a transaction charges. */
  readonly batchSize: number;
  /** This machine's clock. */
  readonly nowMs?: () => number;
}

/** An hour that has to be billed. */
interface DueHour extends Record<string, unknown> {
  /** Its beginning: `2026-06-12T14:00Z`. */
  readonly hour: string;
  readonly current: boolean;
  /** Of its charges in credit_history. */
  readonly reference: string;
}

/** What a run did. Amounts are FULA, exact decimal numbers. */
export interface DeductionReport {
  readonly hours: readonly {
    readonly hour: string;
    readonly charged: number;
    readonly amount: string;
    readonly suspended: number;
    readonly failed: number;
  }[];
  /** Charges of earlier runs that failed again. */
  readonly failedAgain: number;
  /** False if it was stopped before its end. */
  readonly isComplete: boolean;
}

/** 5,000 accounts take less than a second, so that nobody waits long for a row. */
export const BATCH_SIZE = 5_000;

/**
 * Charges what is due: the missed hours of the last day, then the current one. Running it again, or on several masters at
 * once, charges nothing twice: the unique history row of account and hour decides. An account that the database refuses
 * is put aside, and stops nobody else.
 */
export async function runDeduction(run: Deduction): Promise<DeductionReport> {
  const { bank, tariff } = run;
  await refuseWrongClock(bank, run.nowMs ?? wallClockMs);
  await bank.transaction((database) => database.query(RESUME, [tariff.freeBytes]));
  const failedAgain = await retryFailures(run, null);
  return chargeHours(run, await bank.query<DueHour>(DUE_HOURS, [HOURS_BACK]), failedAgain);
}

/** Charges every missed hour from `since` on, whatever its age, and tries failed charges of these hours again. */
export async function catchUp(run: Deduction, since: string): Promise<DeductionReport> {
  await refuseWrongClock(run.bank, run.nowMs ?? wallClockMs);
  const failedAgain = await retryFailures(run, since);
  return chargeHours(run, await run.bank.query<DueHour>(MISSED_HOURS, [since]), failedAgain);
}

async function chargeHours(
  run: Deduction,
  hours: readonly DueHour[],
  failedAgain: number,
): Promise<DeductionReport> {
  const done: DeductionReport["hours"][number][] = [];
  const patience = { isOver: false };
  for (const hour of hours) {
    const charged = await chargeHour(run, hour, patience);
    done.push({ hour: hour.hour, ...charged.sum });
    if (!charged.isComplete) return { hours: done, failedAgain, isComplete: false };
  }
  return { hours: done, failedAgain, isComplete: true };
}

interface Sum {
  charged: number;
  amount: string;
  suspended: number;
  failed: number;
}

/** A page of accounts, as pageSql returns it. */
interface Page extends Record<string, unknown> {
  readonly last: string | null;
  readonly accounts: readonly string[];
  readonly fees: readonly string[];
}

/**
 * Gives every account its turn for an hour. First without waiting for rows that other sessions hold: several runs at once
 * share the work. Then the accounts that were left out, waiting for them; once in a run that is for too long, and then those whose
 * rows are held are put aside.
 */
async function chargeHour(
  run: Deduction,
  due: DueHour,
  patience: { isOver: boolean },
): Promise<{ readonly sum: Sum; readonly isComplete: boolean }> {
  const { bank, tariff, stop, batchSize } = run;
  const sum: Sum = { charged: 0, amount: "0", suspended: 0, failed: 0 };
  const [kept = tariff] = await bank.transaction((database) =>
    database.query<Tariff & Record<string, unknown>>(BEGIN_HOUR, [
      due.hour,
      tariff.freeBytes,
      tariff.unitsPerGibMonth,
    ]),
  );
  let left = Number.POSITIVE_INFINITY;
  for (const wait of [false, true]) {
    if (left === 0) break;
    left = 0;
    let after = "";
    for (;;) {
      if (stop?.aborted === true) return { sum, isComplete: false };
      const [page] = await bank.query<Page>(pageSql(due.current), [
        kept.freeBytes,
        kept.unitsPerGibMonth,
        due.hour,
        due.reference,
        after,
        batchSize,
      ]);
      if (page === undefined || page.last === null) break;
      after = page.last;
      left += await chargeAccounts(run, due, {
        accounts: page.accounts,
        fees: page.fees,
        wait,
        sum,
        patience,
      });
    }
  }
  await bank.transaction((database) => database.query(FINISH_HOUR, [due.hour]));
  return { sum, isComplete: true };
}

/** Accounts, and their fees in the same order. */
interface Owing {
  readonly accounts: readonly string[];
  readonly fees: readonly string[];
}

/** Accounts of one transaction. */
interface Batch extends Owing {
  readonly wait: boolean;
  readonly sum: Sum;
  readonly patience: { isOver: boolean };
}

/**
 * Charges a batch. If the database refuses it for what an account has, its halves are tried; one account is put aside.
 * Returns how many were left out, because another session holds their rows.
 */
async function chargeAccounts(run: Deduction, due: DueHour, batch: Batch): Promise<number> {
  const { accounts, fees, sum, patience } = batch;
  if (accounts.length === 0) return 0;
  const wait = batch.wait && !patience.isOver;
  try {
    const charged = await run.bank.transaction((database) =>
      chargeBatch(database, due, { accounts, fees, wait }),
    );
    sum.charged += charged.charged;
    sum.amount = addDecimals(sum.amount, charged.amount);
    sum.suspended += charged.suspended;
    if (batch.wait && charged.left.accounts.length > 0) {
      await putAside(run, due, { ...charged.left, why: HELD });
      sum.failed += charged.left.accounts.length;
    }
    return charged.left.accounts.length;
  } catch (thrown) {
    if (codeOfServer(thrown) === NOT_AVAILABLE && wait) {
      patience.isOver = true;
      return chargeAccounts(run, due, batch);
    }
    if (!isOfAccount(thrown)) throw thrown;
    const [account] = accounts;
    if (accounts.length === 1 && account !== undefined) {
      await putAside(run, due, { accounts, fees, why: refusalOf(thrown, account) });
      sum.failed += 1;
      return 0;
    }
    const middle = Math.ceil(accounts.length / 2);
    const part = (from: number, to: number) =>
      chargeAccounts(run, due, { ...batch, accounts: accounts.slice(from, to), fees: fees.slice(from, to) });
    const left = await part(0, middle);
    return left + (await part(middle, accounts.length));
  }
}

const HELD = "another session held its balance";

interface Charged extends Record<string, unknown> {
  readonly charged: number;
  readonly amount: string;
  readonly suspended: number;
}

const NOTHING: Charged = { charged: 0, amount: "0", suspended: 0 };

async function chargeBatch(
  database: Pick<Bank, "query">,
  { hour, reference, current }: DueHour,
  { accounts, fees, wait }: Pick<Batch, "accounts" | "fees" | "wait">,
): Promise<Charged & { readonly left: Owing }> {
  await database.query(BY_INDEX);
  await database.query(ADD_MISSING, [accounts]);
  const rows = await database.query<{ account: string }>(lockSql(wait), [accounts]);
  const feeOf = new Map(accounts.map((account, at) => [account, fees[at] ?? "0"]));
  const locked = rows.map(({ account }) => account);
  const found = new Set(locked);
  const held = accounts.filter((account) => !found.has(account));
  const left = { accounts: held, fees: held.map((account) => feeOf.get(account) ?? "0") };
  if (rows.length === 0) return { ...NOTHING, left };
  const [charged = NOTHING] = await database.query<Charged>(chargeSql(current), [
    locked,
    locked.map((account) => feeOf.get(account)),
    hour,
    reference,
  ]);
  if (charged.charged + charged.suspended > 0)
    await database.query(COUNT_BATCH, [hour, charged.charged, charged.amount, charged.suspended]);
  return { ...charged, left };
}

/**
 * Errors that the data of one account or transfer can cause: out of range (class 22), a constraint (23), a trigger of somebody
 * (P0). A table that has no number for another row takes nobody's.
 */
export function isOfData(thrown: unknown): boolean {
  return /^(?:22|23|P0)/.test(codeOfServer(thrown)) && !lacksRowNumbers(thrown);
}

/** A row stays locked by another session (lock_not_available). */
const NOT_AVAILABLE = "55P03";

/** Or a row that another session holds for too long (55P03). Every other error stops the run; the next one goes on. */
function isOfAccount(thrown: unknown): boolean {
  return isOfData(thrown) || codeOfServer(thrown) === NOT_AVAILABLE;
}

async function putAside(
  { bank, log }: Deduction,
  { hour }: DueHour,
  { accounts, fees, why }: Owing & { readonly why: string },
): Promise<void> {
  await bank.transaction((database) => database.query(NOTE_FAILURES, [hour, accounts, fees, why]));
  const whose = accounts.length === 1 ? accounts[0] : countOf(accounts.length, "account");
  log(
    `deduction: the charge of ${whose} for ${hour} failed and is tried again: ${why}. See fula-node billing runs`,
    "warn",
  );
}

/** Why the database refuses a charge or a credit of an account. */
export function refusalOf(thrown: unknown, account: string): string {
  return isNoAmount(thrown)
    ? `the balance of ${account} is not an amount (NaN, or infinite), or would be above 10^30 FULA; fula-node user credit gives it one again`
    : messageOf(thrown);
}

/** The longest time for charges that failed before: the others wait for it. */
const RETRY_MS = 60_000;

/**
 * Tries failed charges again, with the fee of that time: those from `since` on, or of the last day. One that is no longer
 * due is dropped. None waits for a row. Returns how many failed again.
 */
async function retryFailures(run: Deduction, since: string | null): Promise<number> {
  const values = [since, HOURS_BACK];
  let failed = 0;
  const failures = await run.bank.query<DueHour & { account: string; fee: string }>(FAILURES, values);
  const end = performance.now() + RETRY_MS;
  for (const { account, fee, ...due } of failures) {
    if (run.stop?.aborted === true || performance.now() > end) break;
    const one = { accounts: [account], fees: [fee] };
    try {
      const isHeld = await run.bank.transaction(async (database) => {
        const { left } = await chargeBatch(database, due, { ...one, wait: false });
        if (left.accounts.length > 0) return true;
        await database.query(FORGET_FAILURE, [due.hour, account]);
        return false;
      });
      if (!isHeld) continue;
      await putAside(run, due, { ...one, why: HELD });
      failed += 1;
    } catch (thrown) {
      if (!isOfAccount(thrown)) throw thrown;
      await putAside(run, due, { ...one, why: refusalOf(thrown, account) });
      failed += 1;
    }
  }
  return failed;
}

/** Adds two decimal numbers with up to 18 digits after the point, exactly. */
export function addDecimals(one: string, other: string): string {
  const scaled = (text: string): bigint => {
    const [whole = "0", digits = ""] = text.split(".");
    return BigInt(whole + digits.padEnd(18, "0"));
  };
  const sum = String(scaled(one) + scaled(other)).padStart(19, "0");
  return `${sum.slice(0, -18)}.${sum.slice(-18)}`.replace(/\.?0+$/, "");
}

/** What an hour would cost at most: an account whose balance ends pays less. */
export interface HourPreview extends Record<string, unknown> {
  readonly hour: string;
  readonly accounts: number;
  readonly fula: string;
}

/** What a run would charge now, hour by hour; with `since`, what a catch-up from that hour on would charge. */
export async function previewDeduction(
  { bank, tariff, nowMs = wallClockMs }: Pick<Deduction, "bank" | "tariff" | "nowMs">,
  since: string | null,
): Promise<readonly HourPreview[]> {
  await refuseWrongClock(bank, nowMs);
  const hours = await bank.query<DueHour>(
    since === null ? DUE_HOURS : MISSED_HOURS,
    since === null ? [HOURS_BACK] : [since],
  );
  const previews: HourPreview[] = [];
  for (const { hour, current, reference } of hours) {
    const [kept = tariff] = await bank.query<Tariff & Record<string, unknown>>(HOUR_TARIFF, [hour]);
    const values = [kept.freeBytes, kept.unitsPerGibMonth, hour, reference];
    const [found] = await bank.query<{ accounts: number; fula: string }>(previewSql(current), values);
    previews.push({ hour, accounts: found?.accounts ?? 0, fula: found?.fula ?? "0" });
  }
  return previews;
}

/** Decides that missed hours from `since` on are not billed. Returns how many. */
export async function waiveHours(bank: Pick<Bank, "query">, since: string): Promise<number> {
  await refuseWrongClock(bank, wallClockMs);
  const rows = await bank.query(`${WAIVE} RETURNING hour`, [since]);
  return rows.length;
}

/** A line in the audit log: what the operator decided about missed hours, and what came of it. */
export async function auditHours(
  bank: Pick<Bank, "query">,
  action: "catch-up" | "waive hours",
  {
    actor,
    ...details
  }: { readonly actor: string; readonly since: string } & Readonly<Record<string, unknown>>,
): Promise<void> {
  await bank.query("INSERT INTO admin_audit_log (actor, action, details) VALUES ($1, $2, $3::jsonb)", [
    actor,
    action,
    JSON.stringify(details),
  ]);
}
