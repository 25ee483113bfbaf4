-- Takes back the mark of the pins in the cluster. Refuses once pins carry it: no request could unpin them any more.

LOCK TABLE pin_mark IN ACCESS EXCLUSIVE MODE;

DO $$
BEGIN
  IF EXISTS (SELECT FROM pin_mark WHERE since IS NOT NULL) THEN
    RAISE EXCEPTION 'pins in the cluster carry the mark of this database'
      USING HINT = 'A new mark would not match them: accounts could not unpin them. If that is right, set pin_mark.since to NULL first.';
  END IF;
END;
$$;

DROP TABLE pin_mark, pin_mark_heirs;
