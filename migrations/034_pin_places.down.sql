-- Takes back the index. Nothing depends on it but the speed of the queue.

DROP INDEX idx_pin_work_places;
