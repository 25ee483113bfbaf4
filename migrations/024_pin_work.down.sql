-- Takes back the queue of pin requests. Refuses while work is left: it would be forgotten.

LOCK TABLE pin_work IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
  waiting bigint;
BEGIN
  SELECT count(*) INTO waiting FROM pin_work;
  IF waiting > 0 THEN
    RAISE EXCEPTION '% pin request(s) are still being worked on', waiting
      USING HINT = 'Wait until the pinning API has finished them, or stop it and decide for each row of pin_work.';
  END IF;
END;
$$;

DROP TABLE pin_doubts;

-- Not a guard at the head, which is asked before a run: a run that goes back further has reverted 034 by now.
DO $$
BEGIN
  IF to_regclass('public.idx_pin_work_places') IS NOT NULL THEN
    RAISE EXCEPTION 'an index of migration 034 is on pin_work'
      USING HINT = 'Take back 034 first: fula-node migrate down 034.';
  END IF;
END;
$$;

DROP TABLE pin_work;
