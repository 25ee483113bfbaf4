-- The work that pin requests make for the cluster: what must still be sent to it, and what must still be found out.
--
-- A request (a row of pins) has at most one row here. It is written in the statement that accepts, replaces or deletes
-- the request, so no accepted request is lost, and it goes once nothing is left to do for it. A statement that changes
-- both locks the row of pins first. All times are this database's own.
--
-- fula-node:transaction one
-- fula-node:parts
--   WITH columns (name, type, required) AS (VALUES
--     ('requestid', 'text', true), ('account', 'text', true), ('cid', 'text', true), ('action', 'text', true),
--     ('accepted_at', 'timestamptz', true), ('due_at', 'timestamptz', true), ('deadline_at', 'timestamptz', true),
--     ('attempts', 'int4', true), ('sent_at', 'timestamptz', false), ('pinned_at', 'timestamptz', false),
--     ('claim', 'uuid', false), ('claimed_until', 'timestamptz', false), ('last_error', 'text', false),
--     ('phase', 'text', false)
--   ), relation AS (SELECT to_regclass('public.pin_work') AS rel)
--   SELECT 'table pin_work' AS part, rel IS NOT NULL AS there FROM relation
--   UNION ALL
--   SELECT format('column pin_work.%s %s', name, type),
--     EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
--             WHERE a.attrelid = rel AND a.attname = name AND t.typname = type AND a.attnotnull = required)
--   FROM columns, relation WHERE rel IS NOT NULL
--   UNION ALL
--   SELECT 'table pin_doubts', to_regclass('public.pin_doubts') IS NOT NULL
--   UNION ALL
--   SELECT format('index %s', name), to_regclass('public.' || name) IS NOT NULL
--   FROM (VALUES ('idx_pin_work_turn'), ('idx_pin_work_deadline')) AS indexes (name), relation WHERE rel IS NOT NULL

CREATE TABLE pin_work (
  -- pins.requestid. The request can be deleted while its work goes on, so there is no foreign key.
  requestid     text NOT NULL PRIMARY KEY,
  -- pins.user_id, for fair turns.
  account       text NOT NULL,
  -- pins.cid: a CIDv0 as it is, a CIDv1 in base32.
  cid           text NOT NULL,
  action        text NOT NULL,
  accepted_at   timestamptz NOT NULL DEFAULT now(),
  -- Not before this time: backoff, the next look at its status, or the end of a claim.
  due_at        timestamptz NOT NULL DEFAULT now(),
  -- When a pin that nobody can provide becomes failed. Infinity: it was pinned once, and never becomes failed.
  deadline_at   timestamptz NOT NULL,
  -- How often this phase failed.
  attempts      integer NOT NULL DEFAULT 0,
  -- When the cluster accepted it. Null while it waits for its turn.
  sent_at       timestamptz,
  -- When a peer reported it as pinned. From then on only its size is missing.
  pinned_at     timestamptz,
  -- Who works on it. Nobody else writes to the row or the request until claimed_until.
  claim         uuid,
  claimed_until timestamptz,
  last_error    text,
  phase         text GENERATED ALWAYS AS (
    CASE WHEN action = 'unpin' THEN 'unpin' WHEN sent_at IS NULL THEN 'send' WHEN pinned_at IS NULL THEN 'look'
    ELSE 'size' END) STORED,
  CONSTRAINT pin_work_action CHECK (action IN ('pin', 'unpin'))
);

-- Contents for which a call to the cluster got no answer: until then, its effect may still come. An unpin meanwhile is
-- repeated.
CREATE TABLE pin_doubts (
  -- A CIDv1 in base32, whatever the spelling of the request.
  cid   text NOT NULL PRIMARY KEY,
  until timestamptz NOT NULL
);

CREATE INDEX idx_pin_work_turn ON pin_work (account, phase, due_at);
CREATE INDEX idx_pin_work_deadline ON pin_work (deadline_at) WHERE phase = 'send';
