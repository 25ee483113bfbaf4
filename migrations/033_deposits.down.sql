-- Takes back the tables of the deposits. Refuses while they have a deposit: without them, nothing would tell what was
-- credited, or still has to be.

LOCK TABLE deposits, failed_deposits IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
  credited bigint;
  failed bigint;
BEGIN
  SELECT count(*) INTO credited FROM deposits;
  SELECT count(*) INTO failed FROM failed_deposits;
  IF credited + failed > 0 THEN
    RAISE EXCEPTION 'deposits has % transfer(s), and failed_deposits has %', credited, failed
      USING HINT = 'They keep a deposit from being credited twice, or from being lost. Copy both tables (pg_dump -t deposits -t '
                   'failed_deposits), make sure that no master scans, empty them, then run again.';
  END IF;
END;
$$;

DROP TABLE chain_scans, failed_deposits, deposits;
