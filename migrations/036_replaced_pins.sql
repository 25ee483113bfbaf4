-- Keeps the content of a replaced request until what came in its place is pinned.
--
-- waits_for: the request that replaced this one. The row then is an unpin that is put off while that request has no outcome,
-- or failed. Both indexes have only such rows.
--
-- fula-node:transaction one
-- fula-node:parts
--   WITH relation AS (SELECT to_regclass('public.pin_work') AS rel)
--   SELECT 'column pin_work.waits_for text' AS part,
--     EXISTS (SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
--             WHERE a.attrelid = rel AND a.attname = 'waits_for' AND t.typname = 'text' AND NOT a.attnotnull) AS there
--   FROM relation
--   UNION ALL
--   SELECT format('index %s', name), to_regclass('public.' || name) IS NOT NULL
--   FROM (VALUES ('idx_pin_work_waits_for'), ('idx_pin_work_kept')) AS indexes (name)

ALTER TABLE pin_work ADD COLUMN waits_for text;

CREATE INDEX idx_pin_work_waits_for ON pin_work (waits_for) WHERE waits_for IS NOT NULL;
CREATE INDEX idx_pin_work_kept ON pin_work (cid) WHERE waits_for IS NOT NULL;
