-- One hourly deduction per user and hour, whichever master books it first.
--
-- With BILLING_IDEMPOTENCY on, a deduction's reference_id is its UTC hour, and this partial unique index is what
-- ON CONFLICT (user_id, reference_id) WHERE tx_type = 'hourly_deduction' needs; without it every such insert
-- fails with SQLSTATE 42P10.
--
-- Built CONCURRENTLY, so that a large credit_history stays writable meanwhile. A build that was cut short leaves
-- an INVALID index that keeps nothing unique: it is told from a finished one by pg_index.indisvalid, dropped and
-- built anew. (IF NOT EXISTS would take it for finished.)
--
-- fula-node:transaction none
-- fula-node:parts
--   SELECT 'valid unique index idx_credit_history_hourly_dedup on credit_history(user_id, reference_id)' AS part,
--     EXISTS (
--       SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
--       WHERE i.indrelid = to_regclass('public.credit_history') AND c.relname = 'idx_credit_history_hourly_dedup'
--         AND i.indisunique AND i.indisvalid
--         AND pg_get_indexdef(i.indexrelid) LIKE '%(user_id, reference_id)%'
--         AND pg_get_expr(i.indpred, i.indrelid) = '(tx_type = ''hourly_deduction''::text)'
--     ) AS there
-- fula-node:half-done
--   SELECT EXISTS (
--     SELECT FROM pg_index i WHERE i.indexrelid = to_regclass('public.idx_credit_history_hourly_dedup') AND NOT i.indisvalid
--   )
-- fula-node:clear
--   DROP INDEX CONCURRENTLY IF EXISTS public.idx_credit_history_hourly_dedup

DO $$
DECLARE
  pairs bigint;
  first_pairs text;
BEGIN
  SELECT count(*), string_agg(format('(%s, %s) %s times', user_id, reference_id, times), '; ' ORDER BY place)
      FILTER (WHERE place <= 10)
    INTO pairs, first_pairs
    FROM (
      SELECT user_id, reference_id, count(*) AS times, row_number() OVER (ORDER BY user_id, reference_id) AS place
      FROM credit_history
      WHERE tx_type = 'hourly_deduction' AND user_id IS NOT NULL AND reference_id IS NOT NULL
      GROUP BY user_id, reference_id
      HAVING count(*) > 1
    ) AS repeated;
  IF pairs > 0 THEN
    RAISE EXCEPTION '% (user_id, reference_id) pair(s) of hourly deductions are booked more than once', pairs
      USING DETAIL = CASE WHEN pairs > 10 THEN 'The first 10: ' ELSE '' END || first_pairs,
            HINT = 'Decide for each pair which row of credit_history is the true one, correct the balance in user_credits, '
                   'remove the other rows, and run the migrations again.';
  END IF;
END;
$$;

CREATE UNIQUE INDEX CONCURRENTLY idx_credit_history_hourly_dedup
  ON credit_history (user_id, reference_id)
  WHERE tx_type = 'hourly_deduction';
