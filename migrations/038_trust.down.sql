-- Takes back what masters and nodes say about whom they trust; each says it again when it joins. Refuses while a removed
-- master is recorded: it could come back by itself.

LOCK TABLE removed_masters IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
  removed text;
BEGIN
  SELECT string_agg(format('%s (%s, removed %s)', name, id, removed_at), ', ' ORDER BY name, id)
    INTO removed FROM removed_masters
    HAVING count(*) > 0;
  IF removed IS NOT NULL THEN
    RAISE EXCEPTION 'removed masters are recorded: %', removed
      USING HINT = 'Once the machine of each is gone for good or was erased, delete its row from removed_masters.';
  END IF;
END;
$$;

DROP TABLE removed_masters, node_trust, master_peers;
