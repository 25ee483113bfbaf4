-- Takes back that the content of a replaced request stays until its replacement is pinned: it is unpinned at once, and no
-- longer counted.

UPDATE pins SET size = 0
FROM pin_work kept LEFT JOIN pin_work w ON w.requestid = kept.waits_for
WHERE pins.requestid = kept.waits_for AND (pins.status = 'failed'
  OR pins.status IN ('queued', 'pinning') AND coalesce(w.deadline_at, '-infinity') < 'infinity');

UPDATE pin_work SET due_at = now() WHERE waits_for IS NOT NULL;

DROP INDEX idx_pin_work_waits_for, idx_pin_work_kept;
ALTER TABLE pin_work DROP COLUMN waits_for;
