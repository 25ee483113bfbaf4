-- Takes back the names of storage nodes. Refuses while any name is held: its node could lose it to another box.

LOCK TABLE node_names IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
  held bigint;
  first_names text;
BEGIN
  SELECT count(*), string_agg(format('%s (pool %s)', name, pool), ', ' ORDER BY place) FILTER (WHERE place <= 10)
    INTO held, first_names
    FROM (SELECT pool, name, row_number() OVER (ORDER BY pool, name) AS place FROM node_names) AS numbered;
  IF held > 0 THEN
    RAISE EXCEPTION '% node name(s) are held: %', held,
      first_names || CASE WHEN held > 10 THEN ', ...' ELSE '' END
      USING HINT = 'Have each node give its name back (fula-node leave on that box); for a node that is gone for good, '
                   'delete its rows from node_names, node_descriptors and node_owners.';
  END IF;
END;
$$;

DROP TABLE node_names, node_owners, node_descriptors, node_releases;
