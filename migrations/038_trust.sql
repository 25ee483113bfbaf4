-- Which cluster peers the masters of a pool are, whom masters and storage nodes trust, and which masters were removed.
--
-- A pool with two masters works only if every writer and every storage node trusts the peers of both. Each says so here:
-- a master when it joins or changes its trusted peers, a node in a message that it signs (src/federation/announcement.ts).
-- A row of master_peers counts only beside its row of masters, and one of node_trust only while its owner has a name.
-- A master that was removed must not come back by itself: its identity stays here until `fula-node trust add` takes it
-- back, and its services, its billing and its joins look here.
--
-- fula-node:transaction one
-- fula-node:parts
--   WITH columns (tbl, name, type, filled) AS (VALUES
--     ('master_peers', 'pool', 'text', true), ('master_peers', 'id', 'text', true),
--     ('master_peers', 'peer_id', 'text', true), ('master_peers', 'addresses', '_text', true),
--     ('master_peers', 'trusts', '_text', false), ('master_peers', 'updated_at', 'timestamptz', true),
--     ('node_trust', 'pool', 'text', true), ('node_trust', 'owner', 'text', true),
--     ('node_trust', 'trusts', '_text', true), ('node_trust', 'said', 'timestamptz', true),
--     ('node_trust', 'updated_at', 'timestamptz', true),
--     ('removed_masters', 'pool', 'text', true), ('removed_masters', 'id', 'text', true),
--     ('removed_masters', 'name', 'text', true), ('removed_masters', 'peer_id', 'text', false),
--     ('removed_masters', 'machine', 'text', false), ('removed_masters', 'removed_at', 'timestamptz', true),
--     ('removed_masters', 'removed_by', 'text', true)
--   ), keys (tbl, definition) AS (VALUES
--     ('master_peers', 'PRIMARY KEY (pool, id)'), ('node_trust', 'PRIMARY KEY (pool, owner)'),
--     ('removed_masters', 'PRIMARY KEY (pool, id)')
--   ), relations AS (SELECT tbl, definition, to_regclass('public.' || tbl) AS rel FROM keys)
--   SELECT format('table %s', tbl) AS part, rel IS NOT NULL AS there FROM relations
--   UNION ALL
--   SELECT format('column %s.%s %s', tbl, name, type),
--     EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
--             WHERE a.attrelid = rel AND a.attname = name AND t.typname = type AND a.attnotnull = filled)
--   FROM columns JOIN relations USING (tbl) WHERE rel IS NOT NULL
--   UNION ALL
--   SELECT format('%s of %s', definition, tbl),
--     EXISTS (SELECT FROM pg_constraint k
--             WHERE k.conrelid = rel AND k.contype = 'p' AND pg_get_constraintdef(k.oid) = definition)
--   FROM relations WHERE rel IS NOT NULL

CREATE TABLE master_peers (
  pool       text NOT NULL,
  -- Its MASTER_ID.
  id         text NOT NULL,
  -- The peer id of its ipfs-cluster.
  peer_id    text NOT NULL,
  -- Where other peers reach it: multiaddrs that end in /p2p/ and the peer id.
  addresses  text[] NOT NULL,
  -- The peers that its ipfs-cluster trusts; '*' is every peer. Null: not known.
  trusts     text[],
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (pool, id)
);

CREATE TABLE node_trust (
  pool       text NOT NULL,
  -- The node's own peer id.
  owner      text NOT NULL,
  -- The peers that its ipfs-cluster trusts.
  trusts     text[] NOT NULL,
  -- When the node signed that, by its own clock.
  said       timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (pool, owner)
);

CREATE TABLE removed_masters (
  pool       text NOT NULL,
  id         text NOT NULL,
  name       text NOT NULL,
  -- Null: it never recorded one.
  peer_id    text,
  -- A hash of the machine's own id, as in masters.
  machine    text,
  removed_at timestamptz NOT NULL,
  -- The name of the master that removed it; its own if it left.
  removed_by text NOT NULL,
  PRIMARY KEY (pool, id)
);
