-- Takes back the index: the search for credited transfers reads all deposits again.

DROP INDEX idx_deposits_credited_blocks;
