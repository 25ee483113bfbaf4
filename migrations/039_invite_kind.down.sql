-- Takes back the kinds of invites. Refuses while an invite of a master works: it would look like one of a node.

LOCK TABLE invites IN ACCESS EXCLUSIVE MODE;

DO $$
BEGIN
  IF EXISTS (SELECT FROM invites WHERE kind = 'master' AND revoked_at IS NULL
             AND (bound_peer IS NOT NULL OR expires_at > now())) THEN
    RAISE EXCEPTION 'an invite of a master still works'
      USING HINT = 'Revoke each of them (fula-node invite list, fula-node invite revoke ID); masters that joined stay.';
  END IF;
END;
$$;

ALTER TABLE invites DROP COLUMN kind;
