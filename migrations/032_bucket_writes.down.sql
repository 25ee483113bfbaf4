-- Takes back the ids of writes. Refuses while any master works with FULA_BUCKET_ROOT_CAS: its gateway may write them.

LOCK TABLE masters IN SHARE MODE;

DO $$
DECLARE
  users text;
BEGIN
  SELECT string_agg(format('%s (%s, seen %s)', name, id, heartbeat_at), ', ' ORDER BY name, id)
    INTO users FROM masters WHERE 'FULA_BUCKET_ROOT_CAS' = ANY (flags);
  IF users <> '' THEN
    RAISE EXCEPTION 'FULA_BUCKET_ROOT_CAS is in use on: %', users
      USING HINT = 'Set FULA_BUCKET_ROOT_CAS=false on each of these masters and run join-as-master again there; for a master that '
                   'is gone for good, delete its row from masters.';
  END IF;
END;
$$;

DROP TABLE bucket_writes;
