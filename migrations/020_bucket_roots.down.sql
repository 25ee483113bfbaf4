-- Takes back the shared bucket roots, and every pointer in them. Refuses while any master works with
-- FULA_BUCKET_ROOT_CAS: its gateway would lose its buckets' roots.

LOCK TABLE fula_node.flags_in_use IN SHARE MODE;

DO $$
DECLARE
  masters text;
BEGIN
  SELECT string_agg(format('%s (seen %s)', master, seen_at), ', ' ORDER BY master)
    INTO masters FROM fula_node.flags_in_use WHERE flag = 'FULA_BUCKET_ROOT_CAS';
  IF masters IS NOT NULL THEN
    RAISE EXCEPTION 'FULA_BUCKET_ROOT_CAS is in use on: %', masters
      USING HINT = 'Set FULA_BUCKET_ROOT_CAS=false on each of these masters and restart its gateway; for a master that '
                   'is gone for good, delete its row from fula_node.flags_in_use.';
  END IF;
END;
$$;

DROP TABLE IF EXISTS bucket_roots;
