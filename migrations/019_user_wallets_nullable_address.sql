-- A wallet's plain address may be left out: new rows carry only its hash and its encrypted form.
--
-- fula-node:transaction one
-- fula-node:parts
--   SELECT 'user_wallets.wallet_address freed of NOT NULL' AS part,
--     EXISTS (
--       SELECT FROM pg_attribute
--       WHERE attrelid = to_regclass('public.user_wallets') AND attname = 'wallet_address' AND NOT attnotnull
--     ) AS there

ALTER TABLE user_wallets ALTER COLUMN wallet_address DROP NOT NULL;
