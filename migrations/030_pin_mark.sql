-- The mark of this database's pins in the cluster.
--
-- A cluster holds more than what accounts asked for: an operator pins with ipfs-cluster-ctl, and other masters with
-- databases of their own pin too. A pin that the queue sends carries this mark in its metadata, so what an account may
-- unpin or rename is known from the pin itself: it outlives a crash between the sending and the next write here, and a
-- snapshot keeps it. Requests of other programs, and of versions before the mark, can have pins without it: the ids of
-- requests whose pin has the mark begin with `fn-`.
--
-- fula-node:transaction one
-- fula-node:parts
--   WITH columns (name, type) AS (VALUES ('one', 'bool'), ('mark', 'uuid')),
--     relation AS (SELECT to_regclass('public.pin_mark') AS rel)
--   SELECT 'table pin_mark' AS part, rel IS NOT NULL AS there FROM relation
--   UNION ALL
--   SELECT format('column pin_mark.%s %s', name, type),
--     EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
--             WHERE a.attrelid = rel AND a.attname = name AND t.typname = type AND a.attnotnull)
--   FROM columns, relation WHERE rel IS NOT NULL

CREATE TABLE pin_mark (
  -- There is one row.
  one  boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (one),
  mark uuid NOT NULL DEFAULT gen_random_uuid()
);

INSERT INTO pin_mark DEFAULT VALUES;
