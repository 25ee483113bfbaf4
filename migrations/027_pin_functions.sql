-- Two functions for the pinning API.
--
-- pin_account_use: what an account uses, for the credit gate. It first waits for the other requests of the account that
-- ask the same, until their transactions end. Being volatile, it then reads what those have written, which the statement
-- that calls it could not see. The kept sum of migration 025 answers in bounded time. So many requests at once can't all be the last one that is allowed.
--
-- pin_meta: the metadata of a pin as jsonb. A text that is not JSON counts as no metadata: other programs write that
-- column too, and one such row must not make every search fail.
--
-- fula-node:transaction one
-- fula-node:parts
--   SELECT format('function %s', signature) AS part,
--     EXISTS (SELECT FROM pg_proc p WHERE p.oid = to_regprocedure('public.' || signature) AND p.provolatile = volatility) AS there
--   FROM (VALUES ('pin_account_use(text)', 'v'), ('pin_meta(text)', 'i')) AS wanted (signature, volatility)

CREATE FUNCTION pin_account_use(account text, OUT pending bigint, OUT bytes numeric) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  -- The first number only keeps this lock apart from other advisory locks.
  PERFORM pg_advisory_xact_lock(815551026, hashtext(account));
  SELECT count(*) INTO pending FROM public.pins p WHERE p.user_id = $1 AND p.status IN ('queued', 'pinning');
  -- Of these, the bytes are not known yet.
  SELECT pending + count(*) INTO pending FROM public.pin_work w
    WHERE w.account = $1 AND w.action = 'pin' AND w.pinned_at IS NOT NULL;
  SELECT coalesce(sum(u.bytes), 0) INTO bytes FROM public.account_usage u WHERE u.account = $1;
END;
$$;

CREATE FUNCTION pin_meta(meta text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN coalesce(meta::jsonb, '{}');
EXCEPTION WHEN others THEN
  RETURN '{}';
END;
$$;
