-- The invites that the masters of this database made: whom each is for, until when, and which node used it.
--
-- `invite create` writes the row before it prints the invite. An announcement that carries an invite is checked against
-- its row: the signature with verifying_key, and everything else in the statement that announces
-- (src/federation/registry.ts). The first key that uses an invite binds it, and bound_peer never changes again.
--
-- fula-node:transaction one
-- fula-node:parts
--   WITH columns (name, type, filled) AS (VALUES
--     ('pool', 'text', true), ('id', 'text', true), ('name', 'text', false), ('verifying_key', 'text', true),
--     ('issued_at', 'timestamptz', true), ('expires_at', 'timestamptz', true), ('revoked_at', 'timestamptz', false),
--     ('bound_peer', 'text', false), ('bound_at', 'timestamptz', false)
--   ), constraints (name, definition) AS (VALUES
--     ('invites_pkey', 'PRIMARY KEY (pool, id)'),
--     ('invites_bound', 'CHECK (((bound_peer IS NULL) = (bound_at IS NULL)))')
--   )
--   SELECT 'table invites' AS part, to_regclass('public.invites') IS NOT NULL AS there
--   UNION ALL
--   SELECT format('column invites.%s %s', name, type),
--     EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
--             WHERE a.attrelid = to_regclass('public.invites') AND a.attname = columns.name AND t.typname = type
--               AND a.attnotnull = filled)
--   FROM columns WHERE to_regclass('public.invites') IS NOT NULL
--   UNION ALL
--   SELECT format('constraint %s on invites', c.name),
--     EXISTS (SELECT FROM pg_constraint k
--             WHERE k.conrelid = to_regclass('public.invites') AND k.conname = c.name
--               AND pg_get_constraintdef(k.oid) = c.definition)
--   FROM constraints c WHERE to_regclass('public.invites') IS NOT NULL

CREATE TABLE invites (
  pool          text NOT NULL,
  -- 128 random bits, in hex. Not a secret: a node must also show the signature that only its invite contains.
  id            text NOT NULL,
  -- The only name that it may register; null: any one.
  name          text,
  -- The public key of the master that made it (PEM), so that every master of the pool can check it.
  verifying_key text NOT NULL,
  issued_at     timestamptz NOT NULL,
  expires_at    timestamptz NOT NULL,
  revoked_at    timestamptz,
  -- The peer id of the node that used it first, and when.
  bound_peer    text,
  bound_at      timestamptz,
  PRIMARY KEY (pool, id),
  CONSTRAINT invites_bound CHECK ((bound_peer IS NULL) = (bound_at IS NULL))
);
