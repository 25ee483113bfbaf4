-- The masters of each pool: who they are, which flags they use, and when each was last heard of.
--
-- A master is known by its own identity (MASTER_ID, made once), since two machines can have the same name.
-- The flags that 0.1.0 recorded by the name alone (fula_node.flags_in_use) are taken over: such a row has no pool and no
-- machine, and an identity made from the name. It goes once a master of that name records these flags under its own
-- identity; until then it protects what an older master may still use.
--
-- fula-node:transaction one
-- fula-node:parts
--   WITH columns (name, type, required) AS (VALUES
--     ('pool', 'text', true), ('id', 'text', true), ('name', 'text', true), ('flags', '_text', true), ('version', 'text', true),
--     ('machine', 'text', false), ('first_seen_at', 'timestamptz', true), ('heartbeat_at', 'timestamptz', true)
--   ), relation AS (SELECT to_regclass('public.masters') AS rel)
--   SELECT 'table masters' AS part, rel IS NOT NULL AS there FROM relation
--   UNION ALL
--   SELECT format('column masters.%s %s', name, type),
--     EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
--             WHERE a.attrelid = rel AND a.attname = name AND t.typname = type AND a.attnotnull = required)
--   FROM columns, relation WHERE rel IS NOT NULL
--   UNION ALL
--   SELECT 'primary key (pool, id) of masters',
--     EXISTS (SELECT FROM pg_constraint k
--             WHERE k.conrelid = rel AND k.contype = 'p' AND pg_get_constraintdef(k.oid) = 'PRIMARY KEY (pool, id)')
--   FROM relation WHERE rel IS NOT NULL

CREATE TABLE masters (
  -- '' for a master that names no pool.
  pool          text NOT NULL,
  id            text NOT NULL,
  name          text NOT NULL,
  flags         text[] NOT NULL,
  -- The version of fula-node that wrote the row.
  version       text NOT NULL,
  -- A hash of the machine's own id. Null in a row that was taken over from 0.1.0.
  machine       text,
  first_seen_at timestamptz NOT NULL,
  heartbeat_at  timestamptz NOT NULL,
  PRIMARY KEY (pool, id),
  CONSTRAINT masters_id_check CHECK (id ~ '^[0-9a-f]{32}$')
);

INSERT INTO masters (pool, id, name, flags, version, first_seen_at, heartbeat_at)
  SELECT '', md5('0.1.0 ' || master), master, array_agg(flag ORDER BY flag), '0.1.0', min(seen_at), max(seen_at)
  FROM fula_node.flags_in_use
  GROUP BY master;

DELETE FROM fula_node.flags_in_use;
