-- Takes back the list of the masters' invites. Refuses while one of them works: it would look like one of a node.

LOCK TABLE master_invites IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
  working bigint;
BEGIN
  SELECT count(*) INTO working FROM master_invites JOIN invites USING (pool, id)
    WHERE revoked_at IS NULL AND (bound_peer IS NOT NULL OR expires_at > now());
  IF working > 0 THEN
    RAISE EXCEPTION '% invite(s) of masters still work', working
      USING HINT = 'Revoke each of them (fula-node invite list, fula-node invite revoke ID); masters that joined stay.';
  END IF;
END;
$$;

DROP TABLE master_invites;
