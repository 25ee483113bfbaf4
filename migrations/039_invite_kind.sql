-- What an invite is for: a storage node, or another master of this database.
--
-- The invite of a master registers no name. Its row says whether it still holds, and bound_peer is the identity of the
-- master (MASTER_ID) that used it first.
--
-- fula-node:transaction one
-- fula-node:parts
--   SELECT 'column invites.kind text' AS part,
--     EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
--             WHERE a.attrelid = to_regclass('public.invites') AND a.attname = 'kind' AND t.typname = 'text'
--               AND a.attnotnull) AS there
--   UNION ALL
--   SELECT 'constraint invites_kind on invites',
--     EXISTS (SELECT FROM pg_constraint k
--             WHERE k.conrelid = to_regclass('public.invites') AND k.conname = 'invites_kind')

ALTER TABLE invites
  ADD COLUMN kind text NOT NULL DEFAULT 'node',
  ADD CONSTRAINT invites_kind CHECK (kind IN ('node', 'master'));
