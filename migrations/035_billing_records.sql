-- What an hour was charged at, and payments that the operator has decided not to credit.
--
-- fula-node:transaction one
-- fula-node:parts
--   SELECT format('column %s.%s', tbl, name) AS part,
--     EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
--             WHERE a.attrelid = to_regclass('public.' || tbl) AND a.attname = name AND t.typname = type) AS there
--   FROM (VALUES ('billing_hours', 'free_bytes', 'int8'), ('billing_hours', 'fula_per_gib_month', 'numeric'),
--     ('failed_deposits', 'dismissed_at', 'timestamptz'), ('failed_deposits', 'dismissed_by', 'text'),
--     ('chain_scans', 'fault_lasts', 'bool')) AS columns (tbl, name, type)

-- The free tier and the price of all charges of the hour: those of the run that began it. Null for an hour of before this file,
-- and for one that was waived before it was begun.
ALTER TABLE billing_hours
  ADD COLUMN free_bytes bigint,
  ADD COLUMN fula_per_gib_month numeric;

-- A transfer that is dismissed stays in the table: neither a scan nor a claim credits it, until it is tried again by name.
ALTER TABLE failed_deposits
  ADD COLUMN dismissed_at timestamptz,
  ADD COLUMN dismissed_by text;

-- The fault is a mistake in the settings: it does not end by itself.
ALTER TABLE chain_scans ADD COLUMN fault_lasts boolean NOT NULL DEFAULT false;
