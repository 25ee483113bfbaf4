-- Takes back the tables of the billing. Refuses while a master runs the billing, and while exact balances would be lost.

LOCK TABLE user_credits IN SHARE ROW EXCLUSIVE MODE;
LOCK TABLE exact_credits, cron_lease IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
  inexact bigint;
BEGIN
  SELECT count(*) INTO inexact FROM exact_credits WHERE balance <> balance::real::text::numeric;
  IF inexact > 0 THEN
    RAISE EXCEPTION '% balance(s) have more digits than a REAL', inexact
      USING HINT = 'These digits would be lost. If that is right, delete the rows of exact_credits.';
  END IF;
END;
$$;

DROP TRIGGER user_credits_resumed ON user_credits;

-- Not a guard at the head, which is asked before a run: a rollback stops the storage API of this master first.
DO $$
DECLARE
  leader text;
BEGIN
  SELECT coalesce(holder, 'without an identity') INTO leader FROM cron_lease
    WHERE pid IS NOT NULL AND heartbeat_at > now() - interval '5 minutes';
  IF leader IS NOT NULL THEN
    RAISE EXCEPTION 'a master runs the billing: %', leader
      USING HINT = 'Stop the storage API of every master first.';
  END IF;
END;
$$;

DROP FUNCTION record_suspension();
DROP FUNCTION change_credits(varchar, numeric, numeric, numeric, boolean);
DROP VIEW account_credits;
DROP FUNCTION exact_credit(real, numeric);
DROP TABLE failed_charges, billing_hours, cron_lease, account_suspensions, credit_takeovers, exact_credits;
