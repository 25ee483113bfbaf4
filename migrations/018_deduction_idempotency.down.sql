-- Takes back the index that BILLING_IDEMPOTENCY stands on. Refuses while any master works with that flag (without
-- the index each of its deductions fails), and while the deductions themselves show one that did so within a day.

LOCK TABLE fula_node.flags_in_use IN SHARE MODE;

DO $$
DECLARE
  users text;
  recorded text;
BEGIN
  SELECT string_agg(format('%s (seen %s)', master, seen_at), ', ' ORDER BY master)
    INTO users FROM fula_node.flags_in_use WHERE flag = 'BILLING_IDEMPOTENCY';
  -- 022 makes this table, and takes over the one above.
  IF to_regclass('public.masters') IS NOT NULL THEN
    LOCK TABLE masters IN SHARE MODE;
    SELECT string_agg(format('%s (%s, seen %s)', name, id, heartbeat_at), ', ' ORDER BY name, id)
      INTO recorded FROM masters WHERE 'BILLING_IDEMPOTENCY' = ANY (flags);
    users := concat_ws(', ', users, recorded);
  END IF;
  IF users <> '' THEN
    RAISE EXCEPTION 'BILLING_IDEMPOTENCY is in use on: %', users
      USING HINT = 'Set BILLING_IDEMPOTENCY=false on each of these masters and run join-as-master again there; for a master that '
                   'is gone for good, delete its row from masters.';
  END IF;
END;
$$;

-- What is recorded can be wrong; only a master with the flag on books an hour by its name (hour:2026-06-12T14).
DO $$
DECLARE
  booked bigint;
  latest timestamptz;
BEGIN
  SELECT count(*), max(created_at) INTO booked, latest FROM credit_history
    WHERE tx_type = 'hourly_deduction' AND reference_id LIKE 'hour:%' AND created_at > now() - interval '1 day';
  IF booked > 0 THEN
    RAISE EXCEPTION 'a master books deductions with BILLING_IDEMPOTENCY: % within a day, the last one at %', booked, latest
      USING HINT = 'Find the master that is not recorded (fula-node join-as-master there records it), set '
                   'BILLING_IDEMPOTENCY=false on it, and wait a day.';
  END IF;
END;
$$;

DROP INDEX IF EXISTS public.idx_credit_history_hourly_dedup;
