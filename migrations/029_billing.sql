-- Billing: exact balances, what was billed, and which master runs the billing.
--
-- exact_credits keeps the balance and totals of an account as exact numbers. The REAL columns of user_credits are their
-- rounding, so upstream's image reads the same row: a REAL has about seven digits, so a fee of 0.004 does not change a
-- balance of 200000. Where a REAL is no longer the rounding of the exact number, upstream's image has changed it: the
-- difference is added to the exact number, and recorded in credit_takeovers. The view account_credits gives the result.
--
-- fula-node:transaction one
-- fula-node:parts
--   WITH columns (tbl, spec) AS (VALUES
--     ('exact_credits', 'account varchar, balance numeric, deposited numeric, deducted numeric, bonus numeric'),
--     ('credit_takeovers', 'id int8, account varchar, balance numeric, deposited numeric, deducted numeric, bonus numeric, seen_at timestamptz'),
--     ('account_suspensions', 'id int8, account varchar, began_at timestamptz, ended_at timestamptz'),
--     ('cron_lease', 'name text, generation int8, heartbeat_at timestamptz'),
--     ('billing_hours', 'hour timestamptz, started_at timestamptz, waived bool, charged int8, amount numeric, suspended int8'),
--     ('failed_charges', 'hour timestamptz, account varchar, fee numeric, reason text, tries int4, failed_at timestamptz')
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
--   SELECT 'view account_credits', to_regclass('public.account_credits') IS NOT NULL
--   UNION ALL
--   SELECT format('function %s', signature), to_regprocedure('public.' || signature) IS NOT NULL
--   FROM unnest(ARRAY['exact_credit(real, numeric)', 'change_credits(varchar, numeric, numeric, numeric, boolean)']) AS signature
--   UNION ALL
--   SELECT 'trigger user_credits_resumed on user_credits',
--     EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass('public.user_credits') AND tgname = 'user_credits_resumed'
--             AND tgenabled <> 'D')

CREATE TABLE exact_credits (
  -- user_credits.user_id.
  account   varchar(64) NOT NULL PRIMARY KEY,
  balance   numeric NOT NULL,
  deposited numeric NOT NULL,
  deducted  numeric NOT NULL,
  bonus     numeric NOT NULL,
  -- NaN and infinity are refused too: for numeric, NaN is greater than every number.
  CONSTRAINT exact_credits_range CHECK (
    balance BETWEEN -1e30 AND 1e30 AND deposited BETWEEN -1e30 AND 1e30
    AND deducted BETWEEN -1e30 AND 1e30 AND bonus BETWEEN -1e30 AND 1e30)
) WITH (fillfactor = 70);

-- What upstream's image added to, or took from, the REAL columns of an account.
CREATE TABLE credit_takeovers (
  id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account   varchar(64) NOT NULL,
  balance   numeric NOT NULL,
  deposited numeric NOT NULL,
  deducted  numeric NOT NULL,
  bonus     numeric NOT NULL,
  seen_at   timestamptz NOT NULL DEFAULT now()
);

-- The exact number behind a REAL. Without one yet, the shortest decimal number that has this REAL as its rounding.
CREATE FUNCTION exact_credit(shown real, exact numeric) RETURNS numeric LANGUAGE sql STABLE AS $$
  SELECT CASE
    WHEN exact IS NULL THEN coalesce(shown::text::numeric, 0)
    WHEN shown = exact::real THEN exact
    ELSE exact + coalesce(shown::text::numeric, 0) - exact::real::text::numeric
  END
$$;

CREATE VIEW account_credits AS
  SELECT c.user_id AS account,
    exact_credit(c.balance_fula, e.balance) AS balance,
    exact_credit(c.total_deposited_fula, e.deposited) AS deposited,
    exact_credit(c.total_deducted_fula, e.deducted) AS deducted,
    exact_credit(c.total_bonus_received_fula, e.bonus) AS bonus,
    coalesce(c.is_suspended = 1, false) AS suspended,
    e.account IS NOT NULL AND (
      c.balance_fula IS DISTINCT FROM e.balance::real OR c.total_deposited_fula IS DISTINCT FROM e.deposited::real
      OR c.total_deducted_fula IS DISTINCT FROM e.deducted::real
      OR c.total_bonus_received_fula IS DISTINCT FROM e.bonus::real) AS moved
  FROM user_credits c LEFT JOIN exact_credits e ON e.account = c.user_id
  WHERE c.user_id IS NOT NULL;

-- Changes the balance and totals of one account, and returns its balance. It locks the account's row first, and each
-- statement after that sees what others committed before. With `resume`, it ends a suspension that is not the operator's.
CREATE FUNCTION change_credits(
  of_account varchar, change numeric, add_deposited numeric, add_bonus numeric, resume boolean,
  OUT balance numeric, OUT suspended boolean
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  has public.account_credits;
BEGIN
  -- Without this condition, every conflict would use up one of the ids, which are integers.
  INSERT INTO public.user_credits (user_id) SELECT of_account
    WHERE NOT EXISTS (SELECT FROM public.user_credits c WHERE c.user_id = of_account) ON CONFLICT (user_id) DO NOTHING;
  PERFORM FROM public.user_credits c WHERE c.user_id = of_account FOR NO KEY UPDATE;
  SELECT * INTO has FROM public.account_credits a WHERE a.account = of_account;
  IF has.moved THEN
    INSERT INTO public.credit_takeovers (account, balance, deposited, deducted, bonus)
      SELECT of_account, has.balance - e.balance, has.deposited - e.deposited, has.deducted - e.deducted, has.bonus - e.bonus
      FROM public.exact_credits e WHERE e.account = of_account;
  END IF;
  balance := has.balance + change;
  INSERT INTO public.exact_credits AS e (account, balance, deposited, deducted, bonus)
    VALUES (of_account, has.balance + change, has.deposited + add_deposited, has.deducted, has.bonus + add_bonus)
    ON CONFLICT (account) DO UPDATE SET balance = excluded.balance, deposited = excluded.deposited,
      deducted = excluded.deducted, bonus = excluded.bonus;
  resume := resume AND NOT EXISTS (SELECT FROM public.account_holds h WHERE h.account = of_account);
  UPDATE public.user_credits c SET balance_fula = e.balance::real, total_deposited_fula = e.deposited::real,
      total_deducted_fula = e.deducted::real, total_bonus_received_fula = e.bonus::real,
      is_suspended = CASE WHEN resume THEN 0 ELSE c.is_suspended END,
      suspended_at = CASE WHEN resume THEN NULL ELSE c.suspended_at END
    FROM public.exact_credits e WHERE e.account = of_account AND c.user_id = of_account
    RETURNING coalesce(c.is_suspended = 1, false) INTO suspended;
END;
$$;

-- Suspensions that ended: an hour of a suspension is never billed, also not later. One that has not ended is in
-- user_credits. Whoever ends it, this trigger records it.
CREATE TABLE account_suspensions (
  id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account  varchar(64) NOT NULL,
  began_at timestamptz NOT NULL,
  ended_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_account_suspensions_account ON account_suspensions (account, ended_at);

CREATE FUNCTION record_suspension() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.account_suspensions (account, began_at) VALUES (OLD.user_id, coalesce(OLD.suspended_at, '-infinity'));
  RETURN NULL;
END;
$$;
CREATE TRIGGER user_credits_resumed AFTER UPDATE ON user_credits FOR EACH ROW
  WHEN (OLD.is_suspended = 1 AND NEW.is_suspended IS DISTINCT FROM 1 AND OLD.user_id IS NOT NULL)
  EXECUTE FUNCTION record_suspension();

-- Who runs the billing. The advisory lock 815551001 decides; this row says which session of which master holds it, and
-- since when. A lock that this row does not describe is held by upstream's image.
CREATE TABLE cron_lease (
  name          text NOT NULL PRIMARY KEY,
  -- One more with each holder. A transaction of an earlier holder writes nothing.
  generation    bigint NOT NULL,
  -- MASTER_ID; null if the holder has none.
  holder        text,
  -- The session that holds the lock; null once it was released.
  pid           integer,
  backend_start timestamptz,
  acquired_at   timestamptz,
  heartbeat_at  timestamptz NOT NULL
);

-- Each hour that was billed, or that a master began to bill. An hour between two of these that has no row was missed.
CREATE TABLE billing_hours (
  hour        timestamptz NOT NULL PRIMARY KEY,
  started_at  timestamptz NOT NULL DEFAULT now(),
  -- When every account had its turn.
  finished_at timestamptz,
  -- The operator decided not to bill it.
  waived      boolean NOT NULL DEFAULT false,
  charged     bigint NOT NULL DEFAULT 0,
  amount      numeric NOT NULL DEFAULT 0,
  suspended   bigint NOT NULL DEFAULT 0
);

-- Charges that the database refused, one account each. They are tried again.
CREATE TABLE failed_charges (
  hour      timestamptz NOT NULL,
  account   varchar(64) NOT NULL,
  fee       numeric NOT NULL,
  reason    text NOT NULL,
  tries     integer NOT NULL DEFAULT 1,
  failed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (hour, account)
);
