-- Deposits: transfers of FULA to the vault, each credited once.
--
-- A row of deposits is one transfer: chain, transaction and log index decide. token_transactions, upstream's table, has one
-- row for a transaction: the sum of its transfers, and the sender and account of the first. A row there without rows
-- here was settled by upstream's image, and is never credited again.
--
-- fula-node:transaction one
-- fula-node:parts
--   WITH columns (tbl, spec) AS (VALUES
--     ('deposits', 'chain_id int4, tx_hash text, log_index int4, from_address text, amount numeric, block_number int8, block_hash text'),
--     ('failed_deposits', 'chain_id int4, tx_hash text, log_index int4, transfer jsonb, reason text, tries int4, failed_at timestamptz'),
--     ('chain_scans', 'chain_id int4, first_block int8, head int8')
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
--   SELECT 'primary key (chain_id, tx_hash, log_index) of deposits',
--     EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = rel AND k.contype = 'p'
--             AND pg_get_constraintdef(k.oid) = 'PRIMARY KEY (chain_id, tx_hash, log_index)')
--   FROM relations WHERE tbl = 'deposits' AND rel IS NOT NULL

CREATE TABLE deposits (
  chain_id     integer NOT NULL,
  tx_hash      text NOT NULL,
  log_index    integer NOT NULL,
  from_address text NOT NULL,
  -- In units of 10^-18 FULA.
  amount       numeric NOT NULL CHECK (amount > 0 AND amount < 2::numeric ^ 256),
  block_number bigint NOT NULL,
  -- A transaction that a reorganisation moved to another block is not credited again.
  block_hash   text NOT NULL,
  -- Null until the sender's wallet belongs to an account.
  account      varchar(64),
  credited_at  timestamptz,
  -- credit_history.id of the credit.
  history_id   integer,
  seen_at      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (chain_id, tx_hash, log_index),
  CHECK ((account IS NULL) = (credited_at IS NULL))
);

-- Transfers that can't be credited: the scan goes on behind them. The operator has them tried again.
CREATE TABLE failed_deposits (
  chain_id  integer NOT NULL,
  tx_hash   text NOT NULL,
  log_index integer NOT NULL,
  -- As the chain's node listed it.
  transfer  jsonb NOT NULL,
  reason    text NOT NULL,
  tries     integer NOT NULL DEFAULT 1,
  failed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (chain_id, tx_hash, log_index)
);

-- How the scan of a chain stands. Its cursor is in chain_sync_state, which upstream's image reads too.
CREATE TABLE chain_scans (
  chain_id    integer NOT NULL PRIMARY KEY,
  -- Where the first scan began; nothing before it is looked at again.
  first_block bigint NOT NULL,
  -- The hash of the block at the cursor, to notice a reorganisation. Null: upstream's image moved the cursor.
  hash_block  bigint,
  block_hash  text,
  head        bigint NOT NULL,
  -- Why the last scan ended early, and since when each scan does.
  fault       text,
  fault_since timestamptz,
  scanned_at  timestamptz
);
