-- Takes back the list of invites. Refuses while one of them still works: its node could not register its name any more.

LOCK TABLE invites IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
  working bigint;
  first_ids text;
BEGIN
  SELECT count(*), string_agg(format('%s (pool %s)', id, pool), ', ' ORDER BY place) FILTER (WHERE place <= 10)
    INTO working, first_ids
    FROM (SELECT pool, id, row_number() OVER (ORDER BY pool, id) AS place FROM invites
          WHERE revoked_at IS NULL AND (bound_peer IS NOT NULL OR expires_at > now())) AS numbered;
  IF working > 0 THEN
    RAISE EXCEPTION '% invite(s) still work: %', working,
      first_ids || CASE WHEN working > 10 THEN ', ...' ELSE '' END
      USING HINT = 'Revoke each of them (fula-node invite revoke ID); names that are already registered stay.';
  END IF;
END;
$$;

DROP TABLE invites;
