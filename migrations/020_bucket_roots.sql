-- The shared pointer to each bucket's root, moved by compare-and-swap.
--
-- Gateways with FULA_BUCKET_ROOT_CAS on replace root_cid only where it still is what they read, so that two masters
-- can't overwrite each other's root. Nothing uses the table while the flag is off.
--
-- fula-node:transaction one
-- fula-node:parts
--   WITH columns (name, type) AS (VALUES
--     ('owner_id', 'text'), ('bucket', 'text'), ('root_cid', 'text'), ('version', 'int8'), ('updated_at', 'timestamptz')
--   ), relation AS (SELECT to_regclass('public.bucket_roots') AS rel)
--   SELECT 'table bucket_roots' AS part, rel IS NOT NULL AS there FROM relation
--   UNION ALL
--   SELECT format('column bucket_roots.%s %s', name, type),
--     EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
--             WHERE a.attrelid = rel AND a.attname = name AND t.typname = type AND a.attnotnull)
--   FROM columns, relation WHERE rel IS NOT NULL
--   UNION ALL
--   SELECT 'primary key (owner_id, bucket) of bucket_roots',
--     EXISTS (SELECT FROM pg_constraint k
--             WHERE k.conrelid = rel AND k.contype = 'p' AND pg_get_constraintdef(k.oid) = 'PRIMARY KEY (owner_id, bucket)')
--   FROM relation WHERE rel IS NOT NULL

CREATE TABLE bucket_roots (
  owner_id   text NOT NULL,
  bucket     text NOT NULL,
  root_cid   text NOT NULL,
  version    bigint NOT NULL DEFAULT 1,
  updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (owner_id, bucket)
);
