-- Finds the credited transfers of a range of blocks without reading all deposits: each scan of a chain asks for them, to notice
-- what a reorganisation took away.
--
-- fula-node:transaction one
-- fula-node:parts
--   SELECT 'index idx_deposits_credited_blocks' AS part,
--     to_regclass('public.idx_deposits_credited_blocks') IS NOT NULL AS there

CREATE INDEX idx_deposits_credited_blocks ON deposits (chain_id, block_number) WHERE account IS NOT NULL;
