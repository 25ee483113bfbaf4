-- Takes back the shared bucket roots. Refuses while any master works with FULA_BUCKET_ROOT_CAS (its gateway would
-- lose its buckets' roots), and while any pointer is in the table, whoever put it there.

LOCK TABLE fula_node.flags_in_use IN SHARE MODE;

DO $$
DECLARE
  users text;
  recorded text;
BEGIN
  SELECT string_agg(format('%s (seen %s)', master, seen_at), ', ' ORDER BY master)
    INTO users FROM fula_node.flags_in_use WHERE flag = 'FULA_BUCKET_ROOT_CAS';
  -- 022 makes this table, and takes over the one above.
  IF to_regclass('public.masters') IS NOT NULL THEN
    LOCK TABLE masters IN SHARE MODE;
    SELECT string_agg(format('%s (%s, seen %s)', name, id, heartbeat_at), ', ' ORDER BY name, id)
      INTO recorded FROM masters WHERE 'FULA_BUCKET_ROOT_CAS' = ANY (flags);
    users := concat_ws(', ', users, recorded);
  END IF;
  IF users <> '' THEN
    RAISE EXCEPTION 'FULA_BUCKET_ROOT_CAS is in use on: %', users
      USING HINT = 'Set FULA_BUCKET_ROOT_CAS=false on each of these masters and run join-as-master again there; for a master that '
                   'is gone for good, delete its row from masters.';
  END IF;
END;
$$;

LOCK TABLE bucket_roots IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
  pointers bigint;
  latest timestamptz;
BEGIN
  SELECT count(*), max(updated_at) INTO pointers, latest FROM bucket_roots;
  IF pointers > 0 THEN
    RAISE EXCEPTION 'bucket_roots has % pointer(s), the last one moved at %', pointers, latest
      USING HINT = 'They are the only record of these buckets'' roots. Copy the table (pg_dump -t bucket_roots), make sure '
                   'that no gateway needs them, empty it, then run again.';
  END IF;
END;
$$;

DROP TABLE bucket_roots;
