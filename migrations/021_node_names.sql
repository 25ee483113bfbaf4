-- The names of storage nodes: who holds which, what each says of itself, and how many an owner holds.
--
-- A name belongs to the key that first announced it (owner: the peer id in which that ed25519 key is written), in one
-- pool. Four constraints decide races, each in the statement that announces (src/arbiters/names.ts):
--   node_names_pkey         one holder for a name;
--   node_owners_quota       names <= quota, on the one row of an owner, so that announcements that race wait for it;
--   node_descriptors_pkey   a name that is new can't take over what another one left behind;
--   node_releases_pkey      remembers when a name was given back, so that an older announcement can't take it again.
-- Times that end in _said are the signer's own; the others are this database's.
--
-- fula-node:transaction one
-- fula-node:parts
--   WITH columns (tbl, spec) AS (VALUES
--     ('node_names', 'pool text, name text, owner text, reservation uuid, reserved_at timestamptz'),
--     ('node_owners', 'pool text, owner text, names int4, quota int4'),
--     ('node_descriptors', 'pool text, name text, addresses _text, said timestamptz, signature text, revision int8, updated_at timestamptz'),
--     ('node_releases', 'pool text, name text, owner text, said timestamptz, released_at timestamptz')
--   ), constraints (tbl, name, definition) AS (VALUES
--     ('node_names', 'node_names_pkey', 'PRIMARY KEY (pool, name)'),
--     ('node_names', 'node_names_name_check', 'CHECK (((name ~ ''^[a-z0-9]+(-[a-z0-9]+)*$''::text) AND (length(name) <= 64)))'),
--     ('node_owners', 'node_owners_pkey', 'PRIMARY KEY (pool, owner)'),
--     ('node_owners', 'node_owners_quota', 'CHECK (((names >= 0) AND (names <= quota)))'),
--     ('node_descriptors', 'node_descriptors_pkey', 'PRIMARY KEY (pool, name)'),
--     ('node_releases', 'node_releases_pkey', 'PRIMARY KEY (pool, name, owner)')
--   ), relations AS (SELECT DISTINCT tbl, to_regclass('public.' || tbl) AS rel FROM columns)
--   SELECT format('table %s', tbl) AS part, rel IS NOT NULL AS there FROM relations
--   UNION ALL
--   SELECT format('column %s.%s %s', tbl, name, type),
--     EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
--             WHERE a.attrelid = rel AND a.attname = name AND t.typname = type AND a.attnotnull)
--   FROM columns JOIN relations USING (tbl), unnest(string_to_array(spec, ', ')) AS words,
--     split_part(words, ' ', 1) AS name, split_part(words, ' ', 2) AS type
--   WHERE rel IS NOT NULL
--   UNION ALL
--   SELECT format('constraint %s on %s', c.name, tbl),
--     EXISTS (SELECT FROM pg_constraint k
--             WHERE k.conrelid = rel AND k.conname = c.name AND pg_get_constraintdef(k.oid) = c.definition)
--   FROM constraints c JOIN relations USING (tbl) WHERE rel IS NOT NULL

CREATE TABLE node_names (
  pool        text NOT NULL,
  name        text NOT NULL,
  owner       text NOT NULL,
  -- Made anew by each attempt, kept by the one that got the name.
  reservation uuid NOT NULL,
  reserved_at timestamptz NOT NULL,
  PRIMARY KEY (pool, name),
  CONSTRAINT node_names_name_check CHECK (name ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND length(name) <= 64)
);

CREATE TABLE node_owners (
  pool  text NOT NULL,
  owner text NOT NULL,
  names integer NOT NULL,
  quota integer NOT NULL,
  PRIMARY KEY (pool, owner),
  CONSTRAINT node_owners_quota CHECK (names >= 0 AND names <= quota)
);

CREATE TABLE node_descriptors (
  pool       text NOT NULL,
  name       text NOT NULL,
  addresses  text[] NOT NULL,
  said       timestamptz NOT NULL,
  signature  text NOT NULL,
  -- 1 as seeded, one more with each announcement since.
  revision   bigint NOT NULL,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (pool, name)
);

CREATE TABLE node_releases (
  pool        text NOT NULL,
  name        text NOT NULL,
  owner       text NOT NULL,
  said        timestamptz NOT NULL,
  released_at timestamptz NOT NULL,
  PRIMARY KEY (pool, name, owner)
);
