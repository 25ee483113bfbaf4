-- The mark of this database's pins in the cluster.
--
-- A cluster holds more than what accounts asked for: an operator pins with ipfs-cluster-ctl, and other masters with
-- databases of their own pin too. A pin that the queue sends carries this mark in its metadata, so what an account may
-- unpin or rename is known from the pin itself: it outlives a crash between the sending and the next write here, and a
-- snapshot keeps it. Pins from before the mark have none: of these, the requests are known by their age (since).
--
-- fula-node:transaction one
-- fula-node:parts
--   WITH columns (name, type, required) AS (VALUES ('one', 'bool', true), ('mark', 'uuid', true), ('since', 'timestamptz', false)),
--     relation AS (SELECT to_regclass('public.pin_mark') AS rel)
--   SELECT 'table pin_mark' AS part, rel IS NOT NULL AS there FROM relation
--   UNION ALL
--   SELECT format('column pin_mark.%s %s', name, type),
--     EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
--             WHERE a.attrelid = rel AND a.attname = name AND t.typname = type AND a.attnotnull = required)
--   FROM columns, relation WHERE rel IS NOT NULL
--   UNION ALL
--   SELECT 'table pin_mark_heirs', to_regclass('public.pin_mark_heirs') IS NOT NULL

CREATE TABLE pin_mark (
  -- There is one row.
  one   boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (one),
  mark  uuid NOT NULL DEFAULT gen_random_uuid(),
  -- When the queue began to mark what it sends. Null: not yet. A pin without the mark can only be an account's if its
  -- request is older.
  since timestamptz
);

-- Requests that took over such a pin from an older request for the same CID (POST /pins/{requestid}).
CREATE TABLE pin_mark_heirs (
  requestid text NOT NULL PRIMARY KEY
);

INSERT INTO pin_mark DEFAULT VALUES;
