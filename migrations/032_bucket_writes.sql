-- Tells the writer of a bucket's root whose answer got lost whether the root was moved by itself or by another.
--
-- The statement of fula-node puts the id of its write in front of `writes`, and keeps the newest 16. Upstream's statement
-- does not know the table, so both can move the same root.
--
-- fula-node:transaction one
-- fula-node:parts
--   WITH columns (name, type) AS (VALUES ('owner_id', 'text'), ('bucket', 'text'), ('writes', '_uuid')),
--     relation AS (SELECT to_regclass('public.bucket_writes') AS rel)
--   SELECT 'table bucket_writes' AS part, rel IS NOT NULL AS there FROM relation
--   UNION ALL
--   SELECT format('column bucket_writes.%s %s', name, type),
--     EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
--             WHERE a.attrelid = rel AND a.attname = name AND t.typname = type AND a.attnotnull)
--   FROM columns, relation WHERE rel IS NOT NULL
--   UNION ALL
--   SELECT 'primary key (owner_id, bucket) of bucket_writes',
--     EXISTS (SELECT FROM pg_constraint k
--             WHERE k.conrelid = rel AND k.contype = 'p' AND pg_get_constraintdef(k.oid) = 'PRIMARY KEY (owner_id, bucket)')
--   FROM relation WHERE rel IS NOT NULL

CREATE TABLE bucket_writes (
  owner_id text NOT NULL,
  bucket   text NOT NULL,
  -- The newest first.
  writes   uuid[] NOT NULL,
  PRIMARY KEY (owner_id, bucket)
) WITH (fillfactor = 70);
