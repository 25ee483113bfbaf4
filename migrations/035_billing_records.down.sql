-- Takes back the columns. Refuses while a transfer is dismissed: without them, it would be one that failed, and be credited.

LOCK TABLE failed_deposits IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
  dismissed bigint;
BEGIN
  SELECT count(*) INTO dismissed FROM failed_deposits WHERE dismissed_at IS NOT NULL;
  IF dismissed > 0 THEN
    RAISE EXCEPTION 'failed_deposits has % dismissed transfer(s)', dismissed
      USING HINT = 'Without the columns, a retry would credit them. Copy the table (pg_dump -t failed_deposits), take them out of '
                   'it, then run again. A scan that finds one of them later credits it.';
  END IF;
END;
$$;

ALTER TABLE failed_deposits DROP COLUMN dismissed_at, DROP COLUMN dismissed_by;
ALTER TABLE billing_hours DROP COLUMN free_bytes, DROP COLUMN fula_per_gib_month;
ALTER TABLE chain_scans DROP COLUMN fault_lasts;
