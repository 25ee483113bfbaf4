-- Takes back the tables of accounts. Refuses while they protect something: a revoked session would be valid again, an
-- adjustment could be made twice, and a suspension by the operator would end with the next payment.

LOCK TABLE revoked_wallet_sessions, credit_adjustments, account_holds IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
  revoked bigint;
  adjusted bigint;
  held bigint;
BEGIN
  SELECT count(*) INTO revoked FROM revoked_wallet_sessions WHERE exp > extract(epoch FROM now());
  IF revoked > 0 THEN
    RAISE EXCEPTION '% revoked wallet session(s) have not ended yet', revoked
      USING HINT = 'Wait: a session ends within 24 hours of its start.';
  END IF;
  SELECT count(*) INTO adjusted FROM credit_adjustments WHERE created_at > now() - interval '1 day';
  IF adjusted > 0 THEN
    RAISE EXCEPTION '% adjustment(s) of balances were made within a day', adjusted
      USING HINT = 'Wait a day, so that no retry of "user credit" makes one of them twice.';
  END IF;
  SELECT count(*) INTO held FROM account_holds;
  IF held > 0 THEN
    RAISE EXCEPTION '% account(s) are suspended by the operator', held
      USING HINT = 'End each suspension first (fula-node user unsuspend).';
  END IF;
END;
$$;

DROP TRIGGER pins_usage_insert ON pins;
DROP TRIGGER pins_usage_update ON pins;
DROP TRIGGER pins_usage_delete ON pins;
DROP TRIGGER pins_usage_truncate ON pins;
DROP FUNCTION count_pins_usage();
DROP FUNCTION add_account_usage(varchar, numeric);
DROP TABLE account_usage, revoked_wallet_sessions, wallet_challenges, credit_adjustments, account_holds;
