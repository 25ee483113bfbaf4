-- Takes back the mark of the pins in the cluster. Refuses while pins carry it: no request could unpin them any more.

LOCK TABLE pin_mark IN ACCESS EXCLUSIVE MODE;

DO $$
BEGIN
  IF EXISTS (SELECT FROM pins WHERE requestid LIKE 'fn-%' AND status <> 'deleted') THEN
    RAISE EXCEPTION 'pins in the cluster carry the mark of this database'
      USING HINT = 'A new mark would not match them: accounts could not unpin them. If that is right, remove the prefix fn- from pins.requestid and pin_work.requestid first.';
  END IF;
END;
$$;

DROP TABLE pin_mark;
