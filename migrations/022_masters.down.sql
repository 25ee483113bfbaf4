-- Takes back the table of masters. Their flags go back to where 0.1.0 kept them, by name; those of two masters with the
-- same name become one. Refuses while more than one master of a pool is recorded: the others still write into it.

LOCK TABLE masters IN ACCESS EXCLUSIVE MODE;
LOCK TABLE fula_node.flags_in_use IN SHARE ROW EXCLUSIVE MODE;

DO $$
DECLARE
  several text;
BEGIN
  SELECT string_agg(format('%s (%s, seen %s)', name, id, heartbeat_at), ', ' ORDER BY name, id)
    INTO several FROM masters WHERE machine IS NOT NULL
    HAVING count(*) > 1;
  IF several IS NOT NULL THEN
    RAISE EXCEPTION 'several masters are recorded: %', several
      USING HINT = 'For each master that is gone for good, delete its row from masters. The one that is left can then go '
                   'back to an older fula-node.';
  END IF;
END;
$$;

INSERT INTO fula_node.flags_in_use (master, flag, seen_at)
  SELECT name, flag, max(heartbeat_at) FROM masters, unnest(flags) AS flag GROUP BY name, flag
  ON CONFLICT (master, flag) DO NOTHING;

DROP TABLE masters;
