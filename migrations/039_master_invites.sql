-- Which invites are for another master of this database, and not for a storage node.
--
-- The invite of a master registers no name. Its row in invites says whether it still holds, and bound_peer there is the
-- identity of the master (MASTER_ID) that used it first.
--
-- fula-node:transaction one
-- fula-node:parts
--   SELECT 'table master_invites' AS part, to_regclass('public.master_invites') IS NOT NULL AS there
--   UNION ALL
--   SELECT 'primary key (pool, id) of master_invites',
--     EXISTS (SELECT FROM pg_constraint k
--             WHERE k.conrelid = to_regclass('public.master_invites') AND k.contype = 'p'
--               AND pg_get_constraintdef(k.oid) = 'PRIMARY KEY (pool, id)')
--   WHERE to_regclass('public.master_invites') IS NOT NULL

CREATE TABLE master_invites (
  pool text NOT NULL,
  -- That of its row in invites.
  id   text NOT NULL,
  PRIMARY KEY (pool, id)
);
