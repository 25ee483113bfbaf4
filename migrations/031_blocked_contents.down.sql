-- Takes back the comparison by content. Refuses while contents are blocked: a row in another spelling would no longer block.

LOCK TABLE blocked_cids IN SHARE ROW EXCLUSIVE MODE;

DO $$
DECLARE
  blocked bigint;
BEGIN
  SELECT count(*) INTO blocked FROM blocked_cids;
  IF blocked > 0 THEN
    RAISE EXCEPTION 'blocked_cids has % row(s)', blocked
      USING HINT = 'Without this function, a row blocks only its own spelling. If that is right, save and empty the table first.';
  END IF;
END;
$$;

DROP INDEX idx_blocked_cids_content;
DROP FUNCTION cid_content(text);
