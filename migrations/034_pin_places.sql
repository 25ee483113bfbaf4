-- Counts what accounts have on their way in the cluster: the queue bounds it for accounts whose content nobody has found yet.
--
-- fula-node:transaction one
-- fula-node:parts
--   SELECT 'index idx_pin_work_places' AS part, to_regclass('public.idx_pin_work_places') IS NOT NULL AS there

CREATE INDEX idx_pin_work_places ON pin_work (phase) WHERE deadline_at < 'infinity' AND (phase = 'look' OR claim IS NOT NULL);
