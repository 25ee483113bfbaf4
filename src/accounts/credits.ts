import { isNoAmount } from "../database/connection-fault.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { accountExists } from "./decisions.ts";

type Database = Pick<PostgresPool, "query">;

/** The money of an account. Amounts are FULA: the exact ones of migration 029, as near as a number can be. */
export interface Credits {
  readonly totalDepositedFula: number;
  readonly totalDeductedFula: number;
  readonly totalBonusReceivedFula: number;
  /** RFC 3339 in UTC, with microseconds. */
  readonly suspendedAt: string | null;
  readonly lastDeductionAt: string | null;
}

/** Reads the totals of an account. An account that never had a balance has zeros. */
export async function readCredits(database: Database, account: string): Promise<Credits> {
  const [row] = await database.query<{ [Key in keyof Credits]: string | null }>(CREDITS, [account]);
  return {
    totalDepositedFula: Number(row?.totalDepositedFula ?? 0),
    totalDeductedFula: Number(row?.totalDeductedFula ?? 0),
    totalBonusReceivedFula: Number(row?.totalBonusReceivedFula ?? 0),
    suspendedAt: row?.suspendedAt ?? null,
    lastDeductionAt: row?.lastDeductionAt ?? null,
  };
}

/** A time as RFC 3339 in UTC with all the microseconds that Postgres has: the driver's Date would cut three digits off. */
function utc(column: string): string {
  return `to_char(${column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;
}

const CREDITS = `
  SELECT a.deposited AS "totalDepositedFula", a.deducted AS "totalDeductedFula",
    a.bonus AS "totalBonusReceivedFula", ${utc("c.last_deduction_at")} AS "lastDeductionAt",
    ${utc("coalesce(h.held_at, CASE WHEN c.is_suspended = 1 THEN c.suspended_at END)")} AS "suspendedAt"
  FROM (SELECT 1) AS one
    LEFT JOIN user_credits c ON c.user_id = $1
    LEFT JOIN account_credits a ON a.account = $1
    LEFT JOIN account_holds h ON h.account = $1`;

/** One change of a balance. Its amounts are REAL in the database, exact to about seven digits. */
export interface CreditEntry {
  readonly id: number;
  /** deposit, hourly_deduction, adjustment or referral_bonus. */
  readonly type: string | null;
  readonly amountFula: number;
  readonly balanceAfterFula: number;
  readonly reference: string | null;
  /** RFC 3339 in UTC, with microseconds. */
  readonly created: string;
}

/** No row has it. Row numbers are integers, and may be negative (docs/billing.md#row-numbers). */
export const MIN_ID = -2_147_483_648;

/** A place in a history, newest first: entries older than `created`, and those of that instant with a smaller id. */
export interface HistoryCursor {
  readonly created: string;
  readonly id: number;
}

/** Up to `limit` entries after a cursor, or the newest ones. The order is that of time, and of the id for equal times. */
export async function readHistory(
  database: Database,
  account: string,
  { before, limit }: { readonly before: HistoryCursor | null; readonly limit: number },
): Promise<readonly CreditEntry[]> {
  return database.query<CreditEntry & Record<string, unknown>>(HISTORY, [
    account,
    before?.created ?? "infinity",
    before?.id ?? 0,
    limit,
  ]);
}

const HISTORY = `
  SELECT id, tx_type AS type, amount_fula AS "amountFula", balance_after AS "balanceAfterFula", reference_id AS reference,
    ${utc("created_at")} AS created
  FROM credit_history
  WHERE user_id = $1 AND (created_at, id) < ($2::timestamptz, $3::integer)
  ORDER BY created_at DESC, id DESC LIMIT $4`;

/** A correction of a balance by the operator. */
export interface Adjustment {
  readonly account: string;
  /** An exact decimal number; negative to take FULA away. */
  readonly amount: string;
  readonly reason: string;
  /** What makes it happen once: a second adjustment with this key changes nothing. */
  readonly key: string;
  /** Who did it. */
  readonly actor: string;
}

/**
 * What became of an adjustment. `already`: an adjustment with that key was made before; `made` is that one. `too-large`: the
 * balance would be.
 */
export type AdjustmentOutcome =
  | {
      readonly outcome: "adjusted";
      readonly balanceFula: number;
      readonly isSuspended: boolean;
      readonly replaced: Replaced | null;
    }
  | { readonly outcome: "already"; readonly made: MadeAdjustment; readonly isSame: boolean }
  | { readonly outcome: "no-account" }
  | { readonly outcome: "too-large" };

/** A balance that was no amount, such as NaN, and the exact one before it, which counts again. */
export interface Replaced extends Record<string, unknown> {
  readonly was: string;
  readonly balance: string;
}

/** An adjustment of earlier. */
export interface MadeAdjustment {
  readonly account: string;
  readonly amount: string;
  readonly created: string;
}

/**
 * Changes a balance, once for a key: the balance, the history and the audit log in one statement. This is the only place
 * that adjusts a balance. A credit ends a suspension by the billing, as upstream's adjustment does, but not one by the
 * operator; taking FULA away ends none.
 */
export async function adjustCredit(database: Database, adjustment: Adjustment): Promise<AdjustmentOutcome> {
  try {
    return await adjust(database, adjustment, null);
  } catch (thrown) {
    if (!isNoAmount(thrown)) throw thrown;
  }
  const { account, reason, actor } = adjustment;
  // A statement of its own: the adjustment must see its result.
  const [replaced = null] = await database.query<Replaced>(REPLACE, [account, reason, actor]);
  if (replaced === null) return { outcome: "too-large" };
  return adjust(database, adjustment, replaced);
}

async function adjust(
  database: Database,
  { account, amount, reason, key, actor }: Adjustment,
  replaced: Replaced | null,
): Promise<AdjustmentOutcome> {
  const [adjusted] = await database.query<{ balance: string; suspended: boolean }>(ADJUST, [
    key,
    account,
    amount,
    reason,
    actor,
  ]);
  if (adjusted !== undefined)
    return {
      outcome: "adjusted",
      balanceFula: Number(adjusted.balance),
      isSuspended: adjusted.suspended,
      replaced,
    };
  const [made] = await database.query<MadeAdjustment & { same: boolean } & Record<string, unknown>>(MADE, [
    key,
    account,
    amount,
  ]);
  if (made === undefined) return { outcome: "no-account" };
  return { outcome: "already", made, isSame: made.same };
}

/** Whoever inserts the key decides: a second statement waits for the first one, and then inserts nothing. */
const ADJUST = `
  WITH claimed AS (
    INSERT INTO credit_adjustments (key, account, amount, reason, actor)
      SELECT $1::text, $2::varchar, $3::numeric, $4, $5 WHERE ${accountExists("$2::varchar")}
      ON CONFLICT (key) DO NOTHING RETURNING key, account, amount, reason, actor
  ), credited AS (
    SELECT account, changed.balance, changed.suspended
      FROM claimed, change_credits(account, amount, 0, 0, amount > 0) AS changed
  ), noted AS (
    INSERT INTO credit_history (user_id, tx_type, amount_fula, balance_after, reference_id)
      SELECT account, 'adjustment', amount, balance, 'adjustment:' || key FROM credited JOIN claimed USING (account)
  ), audited AS (
    INSERT INTO admin_audit_log (actor, action, target_id, details)
      SELECT actor, 'credit', account, jsonb_build_object(
        'amount', amount::text, 'key', key, 'reason', reason, 'balanceAfter', trim_scale(balance)) FROM credited JOIN claimed USING (account)
  )
  SELECT balance, suspended FROM credited`;

const MADE = `
  SELECT account, trim_scale(amount)::text AS amount, ${utc("created_at")} AS created,
    account = $2::varchar AND amount = $3::numeric AS same
  FROM credit_adjustments WHERE key = $1`;

/** For a REAL that is no amount, the exact number before it; 0 if there is none. */
const AMOUNT = (column: string, exact: string) => `
  CASE WHEN c.${column} IS NULL OR c.${column}::text::numeric BETWEEN -1e30 AND 1e30 THEN c.${column}
    ELSE coalesce(e.${exact}, 0)::real END`;

/** Gives an account amounts again, with a line in the audit log. No row if it has some. */
const REPLACE = `
  WITH now AS (
    SELECT c.id, c.balance_fula AS was, ${AMOUNT("balance_fula", "balance")} AS balance,
      ${AMOUNT("total_deposited_fula", "deposited")} AS deposited, ${AMOUNT("total_deducted_fula", "deducted")} AS deducted,
      ${AMOUNT("total_bonus_received_fula", "bonus")} AS bonus
    FROM user_credits c LEFT JOIN exact_credits e ON e.account = c.user_id WHERE c.user_id = $1::varchar FOR NO KEY UPDATE OF c
  ), replaced AS (
    UPDATE user_credits c SET balance_fula = now.balance, total_deposited_fula = now.deposited,
        total_deducted_fula = now.deducted, total_bonus_received_fula = now.bonus
      FROM now WHERE c.id = now.id AND (c.balance_fula, c.total_deposited_fula, c.total_deducted_fula, c.total_bonus_received_fula)
        IS DISTINCT FROM (now.balance, now.deposited, now.deducted, now.bonus)
      RETURNING now.was::text AS was, c.balance_fula::text AS balance
  ), audited AS (
    INSERT INTO admin_audit_log (actor, action, target_id, details)
      SELECT $3, 'replace balance', $1::varchar, jsonb_build_object('reason', $2::text, 'was', was, 'balance', balance)
      FROM replaced
  )
  SELECT was, balance FROM replaced`;
