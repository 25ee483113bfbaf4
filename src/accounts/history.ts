import type { PostgresPool } from "../database/postgres.ts";

/** One change of a balance, for the operator: with every digit that is kept. */
export interface HistoryLine extends Record<string, unknown> {
  readonly id: number;
  /** deposit, hourly_deduction, adjustment or referral_bonus. */
  readonly type: string | null;
  /** Exact for deposits and adjustments; the others have the digits of a REAL, about seven. */
  readonly fula: string;
  readonly balanceAfter: string | null;
  readonly reference: string | null;
  /** In UTC. */
  readonly created: string;
  /** Of a charge: at what tariff its hour was charged; null if that was not kept. */
  readonly freeBytes: string | null;
  readonly fulaPerGibMonth: string | null;
}

/** The newest lines of an account, or those before the line `after`. Null if the account has no such line. */
export async function listHistory(
  database: Pick<PostgresPool, "query">,
  account: string,
  { after, limit }: { readonly after: number | null; readonly limit: number },
): Promise<readonly HistoryLine[] | null> {
  if (after !== null) {
    const found = await database.query("SELECT FROM credit_history WHERE user_id = $1 AND id = $2", [
      account,
      after,
    ]);
    if (found.length === 0) return null;
  }
  return database.query<HistoryLine>(LINES, [account, after, limit]);
}

const LINES = `
  SELECT h.id, h.tx_type AS type, coalesce(trim_scale(coalesce(a.amount, d.amount * 1e-18))::text, h.amount_fula::text) AS fula,
    h.balance_after::text AS "balanceAfter", h.reference_id AS reference,
    to_char(h.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS created,
    b.free_bytes::text AS "freeBytes", b.fula_per_gib_month::text AS "fulaPerGibMonth"
  FROM (
    SELECT * FROM credit_history c WHERE user_id = $1 AND ($2::integer IS NULL OR (created_at, id) < (
      SELECT created_at, id FROM credit_history WHERE user_id = $1 AND id = $2::integer))
    ORDER BY created_at DESC, id DESC LIMIT $3) AS h
    LEFT JOIN credit_adjustments a
      ON h.tx_type = 'adjustment' AND a.account = h.user_id AND h.reference_id = 'adjustment:' || a.key
    LEFT JOIN deposits d
      ON h.tx_type = 'deposit' AND d.history_id = h.id AND d.tx_hash = split_part(h.reference_id, ':', 2)
      AND d.chain_id::text = split_part(h.reference_id, ':', 1)
    LEFT JOIN billing_hours b ON h.tx_type = 'hourly_deduction'
      AND h.reference_id = 'hour:' || to_char(b.hour AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24')
  ORDER BY h.created_at DESC, h.id DESC`;
