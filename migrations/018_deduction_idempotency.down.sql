-- Takes back the index that BILLING_IDEMPOTENCY stands on. Refuses while any master works with that flag: without
-- the index each of its deductions fails.

LOCK TABLE fula_node.flags_in_use IN SHARE MODE;

DO $$
DECLARE
  masters text;
BEGIN
  SELECT string_agg(format('%s (seen %s)', master, seen_at), ', ' ORDER BY master)
    INTO masters FROM fula_node.flags_in_use WHERE flag = 'BILLING_IDEMPOTENCY';
  IF masters IS NOT NULL THEN
    RAISE EXCEPTION 'BILLING_IDEMPOTENCY is in use on: %', masters
      USING HINT = 'Set BILLING_IDEMPOTENCY=false on each of these masters and restart its services; for a master that '
                   'is gone for good, delete its row from fula_node.flags_in_use.';
  END IF;
END;
$$;

DROP INDEX IF EXISTS public.idx_credit_history_hourly_dedup;
