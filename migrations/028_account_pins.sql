-- How many pins of each status an account has, so that the `count` of a list need not be counted for each request: an
-- account can have a million pins.
--
-- Triggers on pins change the numbers in the statement that changes the pins, whichever program does that. As in
-- account_usage (migration 025), an account has one row, and gets another one when a change finds all of its rows locked
-- by other changes: so changes wait for nobody, and a number is the sum of the account's rows.
--
-- Writers of pins wait only while the triggers are created. The pins from before are counted after that, without a lock:
-- one statement sees both the pins and what the triggers have counted of them up to then, and adds the difference. The
-- function for the API comes last, so nobody reads numbers that are not complete. A run that was cut short is removed and
-- done again.
--
-- fula-node:transaction none
-- fula-node:parts
--   WITH columns (name, type) AS (VALUES
--     ('id', 'int8'), ('account', 'varchar'), ('queued', 'int8'), ('pinning', 'int8'), ('pinned', 'int8'), ('failed', 'int8')
--   ), relation AS (SELECT to_regclass('public.account_pins') AS rel)
--   SELECT 'table account_pins' AS part, rel IS NOT NULL AS there FROM relation
--   UNION ALL
--   SELECT format('column account_pins.%s %s', name, type),
--     EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
--             WHERE a.attrelid = rel AND a.attname = name AND t.typname = type AND a.attnotnull)
--   FROM columns, relation WHERE rel IS NOT NULL
--   UNION ALL
--   SELECT format('trigger %s on pins', name),
--     EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = to_regclass('public.pins') AND g.tgname = name AND g.tgenabled <> 'D')
--   FROM unnest(ARRAY['pins_count_insert', 'pins_count_update', 'pins_count_delete', 'pins_count_truncate']) AS name
--   UNION ALL
--   SELECT 'function account_pin_count(text, text[])', to_regprocedure('public.account_pin_count(text, text[])') IS NOT NULL
-- fula-node:half-done
--   SELECT to_regclass('public.account_pins') IS NOT NULL
--     AND to_regprocedure('public.account_pin_count(text, text[])') IS NULL
-- fula-node:clear
--   DO $$
--   BEGIN
--     DROP FUNCTION IF EXISTS public.count_account_pins() CASCADE;
--     DROP FUNCTION IF EXISTS public.add_account_pins(varchar, bigint, bigint, bigint, bigint);
--     DROP TABLE IF EXISTS public.account_pins;
--   END;
--   $$

CREATE TABLE account_pins (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  -- pins.user_id.
  account varchar(64) NOT NULL,
  -- Parts of the account's numbers; alone, one can be negative.
  queued  bigint NOT NULL,
  pinning bigint NOT NULL,
  pinned  bigint NOT NULL,
  failed  bigint NOT NULL
) WITH (fillfactor = 50);

CREATE INDEX idx_account_pins_account ON account_pins (account);

CREATE FUNCTION add_account_pins(changed_account varchar, more_queued bigint, more_pinning bigint, more_pinned bigint,
  more_failed bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  part bigint;
BEGIN
  SELECT id INTO part FROM public.account_pins WHERE account = changed_account LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
  IF part IS NULL THEN
    INSERT INTO public.account_pins (account, queued, pinning, pinned, failed)
      VALUES (changed_account, more_queued, more_pinning, more_pinned, more_failed);
  ELSE
    UPDATE public.account_pins SET queued = queued + more_queued, pinning = pinning + more_pinning,
      pinned = pinned + more_pinned, failed = failed + more_failed WHERE id = part;
  END IF;
END;
$$;

CREATE FUNCTION count_account_pins() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    PERFORM public.add_account_pins(user_id, count(*) FILTER (WHERE status = 'queued'),
        count(*) FILTER (WHERE status = 'pinning'), count(*) FILTER (WHERE status = 'pinned'),
        count(*) FILTER (WHERE status = 'failed'))
      FROM new_pins WHERE user_id IS NOT NULL AND status <> 'deleted' GROUP BY user_id;
  ELSIF TG_OP = 'DELETE' THEN
    PERFORM public.add_account_pins(user_id, -count(*) FILTER (WHERE status = 'queued'),
        -count(*) FILTER (WHERE status = 'pinning'), -count(*) FILTER (WHERE status = 'pinned'),
        -count(*) FILTER (WHERE status = 'failed'))
      FROM old_pins WHERE user_id IS NOT NULL AND status <> 'deleted' GROUP BY user_id;
  ELSIF TG_OP = 'UPDATE' THEN
    PERFORM public.add_account_pins(user_id, queued, pinning, pinned, failed) FROM (
      SELECT user_id, coalesce(sum(one) FILTER (WHERE status = 'queued'), 0) AS queued,
        coalesce(sum(one) FILTER (WHERE status = 'pinning'), 0) AS pinning,
        coalesce(sum(one) FILTER (WHERE status = 'pinned'), 0) AS pinned,
        coalesce(sum(one) FILTER (WHERE status = 'failed'), 0) AS failed
      FROM (SELECT user_id, status, 1 AS one FROM new_pins UNION ALL SELECT user_id, status, -1 FROM old_pins) AS rows
      WHERE user_id IS NOT NULL GROUP BY user_id) AS changes
      WHERE queued <> 0 OR pinning <> 0 OR pinned <> 0 OR failed <> 0;
  ELSE
    TRUNCATE public.account_pins;
  END IF;
  RETURN NULL;
END;
$$;

-- All at once, and not while a transaction that has changed pins goes on: it would not be counted. Whoever changes pins
-- waits as long as this does.
DO $$
BEGIN
  PERFORM set_config('lock_timeout', '10s', true);
  LOCK TABLE public.pins IN SHARE ROW EXCLUSIVE MODE;
  CREATE TRIGGER pins_count_insert AFTER INSERT ON public.pins
    REFERENCING NEW TABLE AS new_pins FOR EACH STATEMENT EXECUTE FUNCTION public.count_account_pins();
  CREATE TRIGGER pins_count_update AFTER UPDATE ON public.pins
    REFERENCING OLD TABLE AS old_pins NEW TABLE AS new_pins FOR EACH STATEMENT EXECUTE FUNCTION public.count_account_pins();
  CREATE TRIGGER pins_count_delete AFTER DELETE ON public.pins
    REFERENCING OLD TABLE AS old_pins FOR EACH STATEMENT EXECUTE FUNCTION public.count_account_pins();
  CREATE TRIGGER pins_count_truncate AFTER TRUNCATE ON public.pins
    FOR EACH STATEMENT EXECUTE FUNCTION public.count_account_pins();
END;
$$;

INSERT INTO account_pins (account, queued, pinning, pinned, failed)
  SELECT account, sum(queued), sum(pinning), sum(pinned), sum(failed) FROM (
    SELECT user_id AS account, count(*) FILTER (WHERE status = 'queued') AS queued,
      count(*) FILTER (WHERE status = 'pinning') AS pinning, count(*) FILTER (WHERE status = 'pinned') AS pinned,
      count(*) FILTER (WHERE status = 'failed') AS failed
    FROM pins WHERE user_id IS NOT NULL AND status <> 'deleted' GROUP BY user_id
    UNION ALL
    SELECT account, -sum(queued), -sum(pinning), -sum(pinned), -sum(failed) FROM account_pins GROUP BY account) AS parts
  GROUP BY account;

-- How many pins of an account have one of these statuses. Each status counts once, however often it is named.
CREATE FUNCTION account_pin_count(account text, statuses text[]) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT coalesce(sum(
      CASE WHEN 'queued' = ANY ($2) THEN a.queued ELSE 0 END + CASE WHEN 'pinning' = ANY ($2) THEN a.pinning ELSE 0 END
      + CASE WHEN 'pinned' = ANY ($2) THEN a.pinned ELSE 0 END + CASE WHEN 'failed' = ANY ($2) THEN a.failed ELSE 0 END
    ), 0)::bigint
  FROM public.account_pins a WHERE a.account = $1
$$;
