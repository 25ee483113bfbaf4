-- Accounts: how much each stores, which wallet sessions were revoked, wallets that are being linked, and what the
-- operator decided: corrections of balances, and suspensions.
--
-- account_usage keeps, for each account, the sum of the sizes of its pins that are not deleted, so that it need not be
-- summed up for each question: an account can have a million pins. Triggers on pins change it in the statement that
-- changes the pins, whichever service does that. An account has one row, and gets another one when a change finds all of
-- its rows locked by other changes: so changes wait for nobody, and the usage is the sum of the account's rows.
--
-- fula-node:transaction one
-- fula-node:parts
--   WITH columns (tbl, spec) AS (VALUES
--     ('account_usage', 'id int8, account varchar, bytes numeric'),
--     ('revoked_wallet_sessions', 'wallet text, iat int8, exp int8, revoked_at timestamptz'),
--     ('wallet_challenges', 'message_hash text, account varchar, wallet_address_hash varchar, chain_id int4, expires_at timestamptz'),
--     ('credit_adjustments', 'key text, account varchar, amount numeric, reason text, actor text, created_at timestamptz'),
--     ('account_holds', 'account varchar, reason text, actor text, held_at timestamptz')
--   ), relations AS (SELECT tbl, spec, to_regclass('public.' || tbl) AS rel FROM columns)
--   SELECT format('table %s', tbl) AS part, rel IS NOT NULL AS there FROM relations
--   UNION ALL
--   SELECT format('column %s.%s %s', tbl, name, type),
--     EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
--             WHERE a.attrelid = rel AND a.attname = name AND t.typname = type AND a.attnotnull)
--   FROM relations, unnest(string_to_array(spec, ', ')) AS words,
--     split_part(words, ' ', 1) AS name, split_part(words, ' ', 2) AS type
--   WHERE rel IS NOT NULL
--   UNION ALL
--   SELECT format('trigger %s on pins', name),
--     EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = to_regclass('public.pins') AND g.tgname = name AND g.tgenabled <> 'D')
--   FROM unnest(ARRAY['pins_usage_insert', 'pins_usage_update', 'pins_usage_delete', 'pins_usage_truncate']) AS name

CREATE TABLE account_usage (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  -- pins.user_id.
  account varchar(64) NOT NULL,
  -- A part of the account's sum; alone it can be negative.
  bytes   numeric NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX idx_account_usage_account ON account_usage (account);

CREATE FUNCTION add_account_usage(changed_account varchar, change numeric) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  part bigint;
BEGIN
  SELECT id INTO part FROM public.account_usage WHERE account = changed_account LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED;
  IF part IS NULL THEN
    INSERT INTO public.account_usage (account, bytes) VALUES (changed_account, change);
  ELSE
    UPDATE public.account_usage SET bytes = bytes + change WHERE id = part;
  END IF;
END;
$$;

CREATE FUNCTION count_pins_usage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    PERFORM public.add_account_usage(user_id, change) FROM (
      SELECT user_id, sum(size) AS change FROM new_pins
      WHERE status <> 'deleted' AND user_id IS NOT NULL GROUP BY user_id HAVING sum(size) <> 0) AS changes;
  ELSIF TG_OP = 'DELETE' THEN
    PERFORM public.add_account_usage(user_id, -change) FROM (
      SELECT user_id, sum(size) AS change FROM old_pins
      WHERE status <> 'deleted' AND user_id IS NOT NULL GROUP BY user_id HAVING sum(size) <> 0) AS changes;
  ELSIF TG_OP = 'UPDATE' THEN
    PERFORM public.add_account_usage(user_id, change) FROM (
      SELECT user_id, sum(size) AS change FROM (
        SELECT user_id, size, status FROM new_pins UNION ALL SELECT user_id, -size, status FROM old_pins) AS sizes
      WHERE status <> 'deleted' AND user_id IS NOT NULL GROUP BY user_id HAVING sum(size) <> 0) AS changes;
  ELSE
    TRUNCATE public.account_usage;
  END IF;
  RETURN NULL;
END;
$$;

-- Nothing changes pins between the sum and the triggers.
LOCK TABLE pins IN SHARE ROW EXCLUSIVE MODE;

INSERT INTO account_usage (account, bytes)
  SELECT user_id, sum(size) FROM pins WHERE status <> 'deleted' AND user_id IS NOT NULL
  GROUP BY user_id HAVING sum(size) <> 0;

CREATE TRIGGER pins_usage_insert AFTER INSERT ON pins
  REFERENCING NEW TABLE AS new_pins FOR EACH STATEMENT EXECUTE FUNCTION count_pins_usage();
CREATE TRIGGER pins_usage_update AFTER UPDATE ON pins
  REFERENCING OLD TABLE AS old_pins NEW TABLE AS new_pins FOR EACH STATEMENT EXECUTE FUNCTION count_pins_usage();
CREATE TRIGGER pins_usage_delete AFTER DELETE ON pins
  REFERENCING OLD TABLE AS old_pins FOR EACH STATEMENT EXECUTE FUNCTION count_pins_usage();
CREATE TRIGGER pins_usage_truncate AFTER TRUNCATE ON pins
  FOR EACH STATEMENT EXECUTE FUNCTION count_pins_usage();

-- A session is its wallet and its two times, as signed: one signature can be written as many different tokens.
CREATE TABLE revoked_wallet_sessions (
  wallet     text NOT NULL,
  iat        bigint NOT NULL,
  exp        bigint NOT NULL,
  revoked_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (wallet, iat, exp)
);

-- The messages that wallets were asked to sign. The one that comes back signed links the wallet, and its row goes.
CREATE TABLE wallet_challenges (
  -- Hex sha256 of the whole message, which contains a nonce.
  message_hash        text NOT NULL PRIMARY KEY,
  account             varchar(64) NOT NULL,
  wallet_address_hash varchar(64) NOT NULL,
  chain_id            integer NOT NULL,
  expires_at          timestamptz NOT NULL
);
CREATE INDEX idx_wallet_challenges_expires ON wallet_challenges (expires_at);

-- Corrections of balances by the operator. The key makes a second run with it change nothing.
CREATE TABLE credit_adjustments (
  key        text NOT NULL PRIMARY KEY,
  account    varchar(64) NOT NULL,
  -- Exact; the balance is a REAL.
  amount     numeric(30, 8) NOT NULL,
  reason     text NOT NULL,
  actor      text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- The accounts that the operator suspended by name. Only the operator ends that, whatever the balance is.
CREATE TABLE account_holds (
  account varchar(64) NOT NULL PRIMARY KEY,
  reason  text NOT NULL,
  actor   text NOT NULL,
  held_at timestamptz NOT NULL DEFAULT now()
);
