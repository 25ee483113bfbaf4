-- The pinning service's schema, as its own installer leaves it after that one's file 017.
--
-- A database that was made by the bash installer has all of this already: it is adopted, never run over.
-- Part of it (an installer that stopped, or an older one) is refused, and each missing part is named with
-- the number of the upstream file that makes it.
-- user_wallets.wallet_address is NOT NULL here; 019 lifts that.
--
-- fula-node:transaction one
-- fula-node:parts
--   WITH columns (since, tbl, spec) AS (VALUES
--     ('001', 'users', 'id int4, username text, password_hash text, pool_id int4, created_at timestamptz, updated_at timestamptz'),
--     ('010', 'users', 'user_id varchar'),
--     ('001', 'sessions', 'id int4, username text, session_token text, created_at timestamptz, expires_at timestamptz'),
--     ('009', 'sessions', 'token_hash varchar'),
--     ('010', 'sessions', 'user_id varchar'),
--     ('001', 'pins', 'id int4, requestid text, username text, cid text, name text, name_lowercase text, origins text, meta text'),
--     ('001', 'pins', 'status text, upload_status text, remove_status text, delegates text, info text, size int8'),
--     ('001', 'pins', 'session_token text, created_at timestamptz, updated_at timestamptz'),
--     ('009', 'pins', 'token_hash varchar'),
--     ('010', 'pins', 'user_id varchar'),
--     ('001', 'logins', 'id int4, username text, status text, ip_address text, user_agent text, created_at timestamptz'),
--     ('010', 'logins', 'user_id varchar'),
--     ('001', 'webui_users', 'id int4, email text, name text, picture text, created_at timestamptz, last_login_at timestamptz'),
--     ('001', 'webui_users', 'total_upload_size int8, app_downloaded int4, app_downloaded_at timestamptz'),
--     ('005', 'webui_users', 'company text'),
--     ('010', 'webui_users', 'user_id varchar, encrypted_email text'),
--     ('001', 'api_keys', 'id int4, key_id text, user_email text, created_at timestamptz, last_used_at timestamptz'),
--     ('001', 'api_keys', 'is_deleted int4, deleted_at timestamptz'),
--     ('006', 'api_keys', 'encrypted_key text'),
--     ('010', 'api_keys', 'user_id varchar'),
--     ('013', 'api_keys', 'key_hash varchar'),
--     ('001', 'user_wallets', 'id int4, user_email text, wallet_address text, chain_id int4, is_verified int4, connected_at timestamptz'),
--     ('010', 'user_wallets', 'user_id varchar, wallet_address_hash varchar, encrypted_wallet_address text'),
--     ('001', 'token_transactions', 'id int4, tx_hash text, chain_id int4, from_address text, to_address text, amount_raw text'),
--     ('001', 'token_transactions', 'amount_fula float4, block_number int8, block_timestamp int8, user_email text'),
--     ('001', 'token_transactions', 'claimed_at timestamptz, ingestion_source text, created_at timestamptz'),
--     ('010', 'token_transactions', 'user_id varchar'),
--     ('001', 'chain_sync_state', 'chain_id int4, chain_name text, last_scanned_block int8, last_scan_at timestamptz'),
--     ('001', 'chain_sync_state', 'is_enabled int4, token_address text, vault_address text'),
--     ('001', 'user_credits', 'id int4, user_email text, balance_fula float4, total_deposited_fula float4, total_deducted_fula float4'),
--     ('001', 'user_credits', 'last_deduction_at timestamptz, is_suspended int4, suspended_at timestamptz'),
--     ('001', 'user_credits', 'created_at timestamptz, updated_at timestamptz'),
--     ('010', 'user_credits', 'user_id varchar'),
--     ('017', 'user_credits', 'total_bonus_received_fula float4'),
--     ('001', 'credit_history', 'id int4, user_email text, tx_type text, amount_fula float4, balance_after float4'),
--     ('001', 'credit_history', 'reference_id text, created_at timestamptz'),
--     ('010', 'credit_history', 'user_id varchar'),
--     ('001', 'referral_codes', 'id int4, user_email text, code text, created_at timestamptz'),
--     ('004', 'referral_codes', 'name text, is_default bool, inherited_name text'),
--     ('010', 'referral_codes', 'user_id varchar'),
--     ('001', 'referrals', 'id int4, referrer_email text, referred_email text, referral_code text, referred_at timestamptz'),
--     ('010', 'referrals', 'referrer_id varchar, referred_id varchar'),
--     ('001', 'x402_payment_logs', 'id int4, payment_id text, wallet text, tx_hash text, amount_raw text, amount_usdc float4'),
--     ('001', 'x402_payment_logs', 'network text, bucket text, object_key text, size_bytes int8, size_mb float4, ttl_seconds int4'),
--     ('001', 'x402_payment_logs', 'status text, verified_at timestamptz, settled_at timestamptz, error_message text, created_at timestamptz'),
--     ('001', 'x402_ephemeral_objects', 'id int4, bucket text, object_key text, wallet text, size_bytes int8, size_mb float4'),
--     ('001', 'x402_ephemeral_objects', 'payment_id text, expires_at timestamptz, deleted int4, deleted_at timestamptz'),
--     ('001', 'x402_ephemeral_objects', 'delete_error text, created_at timestamptz'),
--     ('007', 'x402_ephemeral_objects', 'delete_attempts int4'),
--     ('001', 'x402_gateway_stats', 'id int4, stat_date date, total_requests int4, total_payments int4, total_settled int4'),
--     ('001', 'x402_gateway_stats', 'total_failed int4, total_bytes_uploaded int8, total_usdc_received float4'),
--     ('001', 'x402_gateway_stats', 'created_at timestamptz, updated_at timestamptz'),
--     ('008', 'admin_audit_log', 'id int4, actor text, action text, target_email text, details jsonb, created_at timestamptz'),
--     ('010', 'admin_audit_log', 'actor_id varchar, target_id varchar'),
--     ('015', 'blocked_cids', 'id int4, cid text, reason text, blocked_by varchar, created_at timestamptz'),
--     ('016', 'blocked_cids', 'mode text'),
--     ('017', 'referral_bonuses', 'id int4, credit_history_id int4, recipient_user_id varchar, recipient_referral_code text'),
--     ('017', 'referral_bonuses', 'source_credit_history_id int4, source_user_id varchar, source_referral_code text, level int4'),
--     ('017', 'referral_bonuses', 'bonus_amount_fula numeric, source_amount_fula numeric, created_at timestamptz')
--   ), uniques (since, tbl, cols) AS (VALUES
--     ('001', 'sessions', 'session_token'), ('009', 'sessions', 'token_hash'), ('001', 'pins', 'requestid'),
--     ('011', 'webui_users', 'user_id'), ('001', 'api_keys', 'key_id'), ('013', 'api_keys', 'key_hash'),
--     ('010', 'user_wallets', 'user_id,wallet_address_hash,chain_id'), ('001', 'token_transactions', 'tx_hash,chain_id'),
--     ('001', 'chain_sync_state', 'chain_id'), ('014', 'user_credits', 'user_id'), ('001', 'referral_codes', 'code'),
--     ('017', 'referrals', 'referred_id'), ('001', 'x402_payment_logs', 'payment_id'),
--     ('001', 'x402_ephemeral_objects', 'bucket,object_key'), ('001', 'x402_gateway_stats', 'stat_date'),
--     ('015', 'blocked_cids', 'cid'), ('017', 'referral_bonuses', 'source_credit_history_id,level')
--   ), no_uniques (since, tbl, cols) AS (VALUES
--     ('004', 'referral_codes', 'user_email'), ('012', 'users', 'username'), ('012', 'webui_users', 'email'),
--     ('012', 'user_credits', 'user_email'), ('012', 'referrals', 'referred_email'),
--     ('012', 'user_wallets', 'user_email,wallet_address,chain_id')
--   ), nullables (since, tbl, col) AS (VALUES
--     ('012', 'users', 'username'), ('012', 'sessions', 'username'), ('012', 'pins', 'username'), ('012', 'logins', 'username'),
--     ('012', 'webui_users', 'email'), ('012', 'api_keys', 'user_email'), ('012', 'user_credits', 'user_email'),
--     ('012', 'credit_history', 'user_email'), ('012', 'referral_codes', 'user_email'), ('012', 'referrals', 'referrer_email'),
--     ('012', 'referrals', 'referred_email'), ('012', 'user_wallets', 'user_email'), ('012', 'admin_audit_log', 'actor'),
--     ('013', 'api_keys', 'key_id')
--   ), references_ (since, tbl, name, target) AS (VALUES
--     ('011', 'api_keys', 'fk_api_keys_user_id', 'webui_users'), ('011', 'referral_codes', 'fk_referral_codes_user_id', 'webui_users'),
--     ('011', 'referrals', 'fk_referrals_referrer_id', 'webui_users'), ('011', 'referrals', 'fk_referrals_referred_id', 'webui_users'),
--     ('001', 'referrals', 'fk_referrals_referral_code', 'referral_codes'),
--     ('001', 'x402_ephemeral_objects', 'fk_ephemeral_payment_id', 'x402_payment_logs')
--   ), no_references (since, tbl, name) AS (VALUES
--     ('011', 'api_keys', 'fk_api_keys_user_email'), ('011', 'referral_codes', 'fk_referral_codes_user_email'),
--     ('011', 'referrals', 'fk_referrals_referrer_email'), ('011', 'referrals', 'fk_referrals_referred_email'),
--     ('012', 'sessions', 'fk_sessions_username'), ('012', 'pins', 'fk_pins_username')
--   ), triggers (since, tbl, name) AS (VALUES
--     ('003', 'pins', 'pins_updated_at'), ('003', 'users', 'users_updated_at'),
--     ('003', 'user_credits', 'user_credits_updated_at'), ('003', 'x402_gateway_stats', 'x402_gateway_stats_updated_at')
--   ), relations AS (
--     SELECT tbl, min(since) AS since, to_regclass('public.' || tbl) AS rel FROM columns GROUP BY tbl
--   ), unique_indexes AS (
--     SELECT i.indrelid AS rel,
--       (SELECT string_agg(a.attname, ',' ORDER BY k.place)
--        FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (num, place)
--        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
--        WHERE k.place <= i.indnkeyatts) AS cols
--     FROM pg_index i JOIN relations ON relations.rel = i.indrelid
--     WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
--   )
--   SELECT format('table %s (upstream %s)', tbl, since) AS part, rel IS NOT NULL AS there FROM relations
--   UNION ALL
--   SELECT format('column %s.%s %s (upstream %s)', tbl, name, type, c.since),
--     EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
--             WHERE a.attrelid = rel AND a.attname = name AND t.typname = type AND NOT a.attisdropped)
--   FROM columns c JOIN relations USING (tbl), unnest(string_to_array(spec, ', ')) AS words,
--     split_part(words, ' ', 1) AS name, split_part(words, ' ', 2) AS type
--   WHERE rel IS NOT NULL
--   UNION ALL
--   SELECT format('unique index on %s(%s) (upstream %s)', tbl, w.cols, w.since),
--     EXISTS (SELECT FROM unique_indexes u WHERE u.rel = r.rel AND u.cols = w.cols)
--   FROM uniques w JOIN relations r USING (tbl) WHERE r.rel IS NOT NULL
--   UNION ALL
--   SELECT format('%s(%s) freed of its unique constraint (upstream %s)', tbl, w.cols, w.since),
--     NOT EXISTS (SELECT FROM unique_indexes u WHERE u.rel = r.rel AND u.cols = w.cols)
--   FROM no_uniques w JOIN relations r USING (tbl) WHERE r.rel IS NOT NULL
--   UNION ALL
--   SELECT format('%s.%s freed of NOT NULL (upstream %s)', tbl, w.col, w.since),
--     EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = rel AND a.attname = w.col AND NOT a.attnotnull)
--   FROM nullables w JOIN relations USING (tbl) WHERE rel IS NOT NULL
--   UNION ALL
--   SELECT format('foreign key %s on %s (upstream %s)', w.name, tbl, w.since),
--     EXISTS (SELECT FROM pg_constraint k
--             WHERE k.conrelid = rel AND k.conname = w.name AND k.contype = 'f' AND k.confrelid = to_regclass('public.' || w.target))
--   FROM references_ w JOIN relations USING (tbl) WHERE rel IS NOT NULL
--   UNION ALL
--   SELECT format('%s freed of foreign key %s (upstream %s)', tbl, w.name, w.since),
--     NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = rel AND k.conname = w.name)
--   FROM no_references w JOIN relations USING (tbl) WHERE rel IS NOT NULL
--   UNION ALL
--   SELECT format('trigger %s on %s (upstream %s)', w.name, tbl, w.since),
--     EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = rel AND t.tgname = w.name)
--   FROM triggers w JOIN relations USING (tbl) WHERE rel IS NOT NULL
--   UNION ALL
--   SELECT 'tx_type referral_bonus in credit_history (upstream 017)',
--     EXISTS (SELECT FROM pg_constraint k
--             WHERE k.conrelid = rel AND k.contype = 'c' AND pg_get_constraintdef(k.oid) LIKE '%referral\_bonus%')
--   FROM relations WHERE tbl = 'credit_history' AND rel IS NOT NULL

-- Accounts and pins -------------------------------------------------------------------------------------------

-- username holds plain text in old rows only; new ones know user_id: the hex sha256 of the lower-cased email.
CREATE TABLE users (
  id            serial PRIMARY KEY,
  username      text,
  password_hash text NOT NULL,
  pool_id       integer DEFAULT 1,
  created_at    timestamptz DEFAULT CURRENT_TIMESTAMP,
  updated_at    timestamptz DEFAULT CURRENT_TIMESTAMP,
  user_id       varchar(64)
);
CREATE INDEX idx_users_username ON users (username);
CREATE INDEX idx_users_user_id ON users (user_id);

CREATE TABLE sessions (
  id            serial PRIMARY KEY,
  username      text,
  session_token text NOT NULL UNIQUE,
  created_at    timestamptz DEFAULT CURRENT_TIMESTAMP,
  expires_at    timestamptz,
  token_hash    varchar(64),
  user_id       varchar(64)
);
CREATE INDEX idx_sessions_token ON sessions (session_token);
CREATE INDEX idx_sessions_username ON sessions (username);
CREATE INDEX idx_sessions_expires ON sessions (expires_at);
CREATE INDEX idx_sessions_user_id ON sessions (user_id);
CREATE UNIQUE INDEX idx_sessions_token_hash ON sessions (token_hash);

CREATE TABLE pins (
  id             serial PRIMARY KEY,
  requestid      text NOT NULL UNIQUE,
  username       text,
  cid            text NOT NULL,
  name           text DEFAULT '',
  name_lowercase text DEFAULT '',
  origins        text DEFAULT '[]',
  meta           text DEFAULT '{}',
  status         text DEFAULT 'queued' CHECK (status IN ('queued', 'pinning', 'pinned', 'failed', 'deleted')),
  upload_status  text DEFAULT 'pending',
  remove_status  text,
  delegates      text DEFAULT '[]',
  info           text DEFAULT '{}',
  size           bigint DEFAULT 0,
  session_token  text DEFAULT '',
  created_at     timestamptz DEFAULT CURRENT_TIMESTAMP,
  updated_at     timestamptz DEFAULT CURRENT_TIMESTAMP,
  token_hash     varchar(64),
  user_id        varchar(64)
);
CREATE INDEX idx_pins_requestid ON pins (requestid);
CREATE INDEX idx_pins_username ON pins (username);
CREATE INDEX idx_pins_cid ON pins (cid);
CREATE INDEX idx_pins_status ON pins (status);
CREATE INDEX idx_pins_name ON pins (name);
CREATE INDEX idx_pins_name_lower ON pins (name_lowercase);
CREATE INDEX idx_pins_created ON pins (created_at DESC);
CREATE INDEX idx_pins_username_status ON pins (username, status);
CREATE INDEX idx_pins_username_created ON pins (username, created_at DESC);
CREATE INDEX idx_pins_session_token ON pins (session_token);
CREATE INDEX idx_pins_token_hash ON pins (token_hash);
CREATE INDEX idx_pins_user_id ON pins (user_id);

CREATE TABLE logins (
  id         serial PRIMARY KEY,
  username   text,
  status     text DEFAULT 'success' CHECK (status IN ('success', 'failed', 'locked')),
  ip_address text,
  user_agent text,
  created_at timestamptz DEFAULT CURRENT_TIMESTAMP,
  user_id    varchar(64)
);
CREATE INDEX idx_logins_username ON logins (username);
CREATE INDEX idx_logins_created ON logins (created_at DESC);
CREATE INDEX idx_logins_status ON logins (status);
CREATE INDEX idx_logins_user_id ON logins (user_id);

-- The web interface ---------------------------------------------------------------------------------------------

CREATE TABLE webui_users (
  id                serial PRIMARY KEY,
  email             text,
  name              text,
  picture           text,
  created_at        timestamptz DEFAULT CURRENT_TIMESTAMP,
  last_login_at     timestamptz,
  total_upload_size bigint DEFAULT 0,
  app_downloaded    integer DEFAULT 0,
  app_downloaded_at timestamptz,
  company           text,
  user_id           varchar(64),
  encrypted_email   text
);
CREATE INDEX idx_webui_users_user_id ON webui_users (user_id);
CREATE UNIQUE INDEX idx_webui_users_user_id_unique ON webui_users (user_id);

CREATE TABLE api_keys (
  id            serial PRIMARY KEY,
  key_id        text UNIQUE,
  user_email    text,
  created_at    timestamptz DEFAULT CURRENT_TIMESTAMP,
  last_used_at  timestamptz,
  is_deleted    integer DEFAULT 0,
  deleted_at    timestamptz,
  encrypted_key text,
  user_id       varchar(64),
  key_hash      varchar(64)
);
CREATE INDEX idx_api_keys_user_email ON api_keys (user_email);
CREATE INDEX idx_api_keys_key_id ON api_keys (key_id);
CREATE INDEX idx_api_keys_user_id ON api_keys (user_id);
CREATE UNIQUE INDEX idx_api_keys_key_hash ON api_keys (key_hash);

-- Money -----------------------------------------------------------------------------------------------------------

CREATE TABLE user_wallets (
  id                       serial PRIMARY KEY,
  user_email               text,
  wallet_address           text NOT NULL,
  chain_id                 integer NOT NULL,
  is_verified              integer DEFAULT 0,
  connected_at             timestamptz DEFAULT CURRENT_TIMESTAMP,
  user_id                  varchar(64),
  wallet_address_hash      varchar(64),
  encrypted_wallet_address text
);
CREATE INDEX idx_user_wallets_email ON user_wallets (user_email);
CREATE INDEX idx_user_wallets_address ON user_wallets (wallet_address);
CREATE INDEX idx_user_wallets_user_id ON user_wallets (user_id);
CREATE INDEX idx_user_wallets_hash ON user_wallets (wallet_address_hash);
CREATE UNIQUE INDEX idx_user_wallets_uid_hash_chain ON user_wallets (user_id, wallet_address_hash, chain_id);

-- UNIQUE (tx_hash, chain_id) is what keeps a deposit from being credited twice.
CREATE TABLE token_transactions (
  id               serial PRIMARY KEY,
  tx_hash          text NOT NULL,
  chain_id         integer NOT NULL,
  from_address     text NOT NULL,
  to_address       text NOT NULL,
  amount_raw       text NOT NULL,
  amount_fula      real NOT NULL,
  block_number     bigint NOT NULL,
  block_timestamp  bigint NOT NULL,
  user_email       text,
  claimed_at       timestamptz,
  ingestion_source text CHECK (ingestion_source IN ('cron', 'manual')),
  created_at       timestamptz DEFAULT CURRENT_TIMESTAMP,
  user_id          varchar(64),
  UNIQUE (tx_hash, chain_id)
);
CREATE INDEX idx_token_tx_from ON token_transactions (from_address);
CREATE INDEX idx_token_tx_user ON token_transactions (user_email);
CREATE INDEX idx_token_tx_hash ON token_transactions (tx_hash);
CREATE INDEX idx_token_transactions_user_id ON token_transactions (user_id);

CREATE TABLE chain_sync_state (
  chain_id           integer PRIMARY KEY,
  chain_name         text NOT NULL,
  last_scanned_block bigint DEFAULT 0,
  last_scan_at       timestamptz,
  is_enabled         integer DEFAULT 1,
  token_address      text NOT NULL,
  vault_address      text NOT NULL
);

CREATE TABLE user_credits (
  id                        serial PRIMARY KEY,
  user_email                text,
  balance_fula              real DEFAULT 0,
  total_deposited_fula      real DEFAULT 0,
  total_deducted_fula       real DEFAULT 0,
  last_deduction_at         timestamptz,
  is_suspended              integer DEFAULT 0,
  suspended_at              timestamptz,
  created_at                timestamptz DEFAULT CURRENT_TIMESTAMP,
  updated_at                timestamptz DEFAULT CURRENT_TIMESTAMP,
  user_id                   varchar(64),
  total_bonus_received_fula real DEFAULT 0
);
CREATE INDEX idx_user_credits_email ON user_credits (user_email);
CREATE INDEX idx_user_credits_suspended ON user_credits (is_suspended);
CREATE INDEX idx_user_credits_user_id ON user_credits (user_id);
CREATE UNIQUE INDEX idx_user_credits_user_id_unique ON user_credits (user_id);

CREATE TABLE credit_history (
  id            serial PRIMARY KEY,
  user_email    text,
  tx_type       text,
  amount_fula   real NOT NULL,
  balance_after real NOT NULL,
  reference_id  text,
  created_at    timestamptz DEFAULT CURRENT_TIMESTAMP,
  user_id       varchar(64),
  CONSTRAINT credit_history_tx_type_check
    CHECK (tx_type IN ('deposit', 'hourly_deduction', 'adjustment', 'referral_bonus'))
);
CREATE INDEX idx_credit_history_email ON credit_history (user_email);
CREATE INDEX idx_credit_history_type ON credit_history (tx_type);
CREATE INDEX idx_credit_history_user_id ON credit_history (user_id);

-- Referrals -------------------------------------------------------------------------------------------------------

CREATE TABLE referral_codes (
  id             serial PRIMARY KEY,
  user_email     text,
  code           text NOT NULL UNIQUE,
  created_at     timestamptz DEFAULT CURRENT_TIMESTAMP,
  name           text,
  is_default     boolean DEFAULT false,
  inherited_name text,
  user_id        varchar(64)
);
CREATE INDEX idx_referral_codes_code ON referral_codes (code);
CREATE INDEX idx_referral_codes_email ON referral_codes (user_email);
CREATE INDEX idx_referral_codes_user_email ON referral_codes (user_email);
CREATE INDEX idx_referral_codes_user_email_default ON referral_codes (user_email, is_default) WHERE is_default = true;
CREATE INDEX idx_referral_codes_user_id ON referral_codes (user_id);

CREATE TABLE referrals (
  id             serial PRIMARY KEY,
  referrer_email text,
  referred_email text,
  referral_code  text NOT NULL,
  referred_at    timestamptz DEFAULT CURRENT_TIMESTAMP,
  referrer_id    varchar(64),
  referred_id    varchar(64),
  CONSTRAINT fk_referrals_referral_code FOREIGN KEY (referral_code) REFERENCES referral_codes (code)
);
CREATE INDEX idx_referrals_referrer ON referrals (referrer_email);
CREATE INDEX idx_referrals_referred ON referrals (referred_email);
CREATE INDEX idx_referrals_referrer_id ON referrals (referrer_id);
CREATE INDEX idx_referrals_referred_id ON referrals (referred_id);
CREATE UNIQUE INDEX idx_referrals_referred_id_unique ON referrals (referred_id);

-- One bonus per source row and level, however often it is computed.
CREATE TABLE referral_bonuses (
  id                       serial PRIMARY KEY,
  credit_history_id        integer NOT NULL REFERENCES credit_history (id) ON DELETE CASCADE,
  recipient_user_id        varchar(64) NOT NULL,
  recipient_referral_code  text NOT NULL,
  source_credit_history_id integer NOT NULL REFERENCES credit_history (id) ON DELETE CASCADE,
  source_user_id           varchar(64) NOT NULL,
  source_referral_code     text NOT NULL,
  level                    integer NOT NULL CHECK (level IN (1, 2, 3)),
  bonus_amount_fula        numeric(30, 8) NOT NULL,
  source_amount_fula       numeric(30, 8) NOT NULL,
  created_at               timestamptz DEFAULT now(),
  UNIQUE (source_credit_history_id, level)
);
CREATE INDEX idx_referral_bonuses_recipient_code ON referral_bonuses (recipient_user_id, recipient_referral_code);
CREATE INDEX idx_referral_bonuses_source ON referral_bonuses (source_user_id);

-- Rows from before user_id may point at nobody: these keys bind new rows only, hence NOT VALID.
ALTER TABLE api_keys
  ADD CONSTRAINT fk_api_keys_user_id FOREIGN KEY (user_id) REFERENCES webui_users (user_id) NOT VALID;
ALTER TABLE referral_codes
  ADD CONSTRAINT fk_referral_codes_user_id FOREIGN KEY (user_id) REFERENCES webui_users (user_id) NOT VALID;
ALTER TABLE referrals
  ADD CONSTRAINT fk_referrals_referrer_id FOREIGN KEY (referrer_id) REFERENCES webui_users (user_id) NOT VALID,
  ADD CONSTRAINT fk_referrals_referred_id FOREIGN KEY (referred_id) REFERENCES webui_users (user_id) NOT VALID;

-- Payments per request (x402) ---------------------------------------------------------------------------------------

CREATE TABLE x402_payment_logs (
  id            serial PRIMARY KEY,
  payment_id    text NOT NULL UNIQUE,
  wallet        text NOT NULL,
  tx_hash       text,
  amount_raw    text NOT NULL,
  amount_usdc   real NOT NULL,
  network       text NOT NULL,
  bucket        text,
  object_key    text,
  size_bytes    bigint,
  size_mb       real,
  ttl_seconds   integer,
  status        text DEFAULT 'pending' CHECK (status IN ('pending', 'verified', 'settled', 'failed')),
  verified_at   timestamptz,
  settled_at    timestamptz,
  error_message text,
  created_at    timestamptz DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX idx_x402_payment_logs_wallet ON x402_payment_logs (wallet);
CREATE INDEX idx_x402_payment_logs_tx_hash ON x402_payment_logs (tx_hash);
CREATE INDEX idx_x402_payment_logs_status ON x402_payment_logs (status);
CREATE INDEX idx_x402_payment_logs_created ON x402_payment_logs (created_at DESC);

CREATE TABLE x402_ephemeral_objects (
  id              serial PRIMARY KEY,
  bucket          text NOT NULL,
  object_key      text NOT NULL,
  wallet          text NOT NULL,
  size_bytes      bigint NOT NULL,
  size_mb         real NOT NULL,
  payment_id      text,
  expires_at      timestamptz NOT NULL,
  deleted         integer DEFAULT 0,
  deleted_at      timestamptz,
  delete_error    text,
  created_at      timestamptz DEFAULT CURRENT_TIMESTAMP,
  delete_attempts integer DEFAULT 0,
  UNIQUE (bucket, object_key),
  CONSTRAINT fk_ephemeral_payment_id FOREIGN KEY (payment_id) REFERENCES x402_payment_logs (payment_id)
);
CREATE INDEX idx_x402_ephemeral_bucket_key ON x402_ephemeral_objects (bucket, object_key);
CREATE INDEX idx_x402_ephemeral_wallet ON x402_ephemeral_objects (wallet);
CREATE INDEX idx_x402_ephemeral_expires ON x402_ephemeral_objects (expires_at);
CREATE INDEX idx_x402_ephemeral_deleted ON x402_ephemeral_objects (deleted);
CREATE INDEX idx_x402_ephemeral_payment ON x402_ephemeral_objects (payment_id);

CREATE TABLE x402_gateway_stats (
  id                   serial PRIMARY KEY,
  stat_date            date NOT NULL UNIQUE,
  total_requests       integer DEFAULT 0,
  total_payments       integer DEFAULT 0,
  total_settled        integer DEFAULT 0,
  total_failed         integer DEFAULT 0,
  total_bytes_uploaded bigint DEFAULT 0,
  total_usdc_received  real DEFAULT 0,
  created_at           timestamptz DEFAULT CURRENT_TIMESTAMP,
  updated_at           timestamptz DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX idx_x402_gateway_stats_date ON x402_gateway_stats (stat_date DESC);

-- Administration ----------------------------------------------------------------------------------------------------

CREATE TABLE admin_audit_log (
  id           serial PRIMARY KEY,
  actor        text,
  action       text NOT NULL,
  target_email text,
  details      jsonb,
  created_at   timestamptz DEFAULT now(),
  actor_id     varchar(64),
  target_id    varchar(64)
);
CREATE INDEX idx_admin_audit_log_actor ON admin_audit_log (actor);
CREATE INDEX idx_admin_audit_log_created_at ON admin_audit_log (created_at);
CREATE INDEX idx_admin_audit_log_actor_id ON admin_audit_log (actor_id);

-- cid is a CIDv1 in base32; 'block' answers 451, 'redirect' sends the client to a public gateway.
CREATE TABLE blocked_cids (
  id         serial PRIMARY KEY,
  cid        text NOT NULL UNIQUE,
  reason     text,
  blocked_by varchar(64),
  created_at timestamptz NOT NULL DEFAULT now(),
  mode       text NOT NULL DEFAULT 'block' CHECK (mode IN ('block', 'redirect'))
);
CREATE INDEX idx_blocked_cids_created_at ON blocked_cids (created_at DESC);

-- Time stamps -------------------------------------------------------------------------------------------------------

CREATE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at = CURRENT_TIMESTAMP;
  RETURN NEW;
END;
$$;
CREATE TRIGGER pins_updated_at BEFORE UPDATE ON pins
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER users_updated_at BEFORE UPDATE ON users
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER user_credits_updated_at BEFORE UPDATE ON user_credits
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER x402_gateway_stats_updated_at BEFORE UPDATE ON x402_gateway_stats
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
