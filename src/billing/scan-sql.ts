// The statements of the scan of chains. The cursor is upstream's, in chain_sync_state.

/** The chains of functionland/pinning-service (index.ts), for a database that has none. $1: the vault. */
export const SEED_CHAINS = `
  INSERT INTO chain_sync_state (chain_id, chain_name, last_scanned_block, token_address, vault_address)
    SELECT id, name, block, token, $1 FROM (VALUES
      (1, 'Ethereum', 24179670, '0x92217cCaEDBdbc54C76c15feA18823db1558fDc9'),
      (8453, 'Base', 40480508, '0x9e12735d77c72c5C3670636D428f2F3815d8A4cB'),
      (2046399126, 'Skale Europa', 22856425, '0x9e12735d77c72c5C3670636D428f2F3815d8A4cB')
    ) AS chains (id, name, block, token)
    WHERE NOT EXISTS (SELECT FROM chain_sync_state)
    ON CONFLICT (chain_id) DO NOTHING`;

/** Upstream's image writes the zero address if it has no VAULT_ADDRESS. $1: the vault. */
export const FILL_VAULT = "UPDATE chain_sync_state SET vault_address = $1 WHERE vault_address ~ '^(0x0*)?$'";

/** A scan begins where the cursor is when it is first seen, and looks at nothing before that. */
export const OPEN_SCANS = `
  INSERT INTO chain_scans (chain_id, first_block, head)
    SELECT chain_id, coalesce(last_scanned_block, 0), 0 FROM chain_sync_state WHERE is_enabled = 1
    ON CONFLICT (chain_id) DO NOTHING`;

/** Enabled chains. A hash counts only if it is that of the block where the cursor is: upstream's image moves it, too. */
export const CHAINS = `
  SELECT c.chain_id AS id, c.chain_name AS name, c.token_address AS token, c.vault_address AS vault,
    coalesce(c.last_scanned_block, 0)::float8 AS cursor,
    least(s.first_block, coalesce(c.last_scanned_block, 0))::float8 AS first,
    CASE WHEN s.hash_block = c.last_scanned_block THEN s.block_hash END AS hash
  FROM chain_sync_state c JOIN chain_scans s USING (chain_id)
  WHERE c.is_enabled = 1 ORDER BY c.chain_id`;

/** $2: the head. */
export const NOTE_SCAN =
  "UPDATE chain_scans SET head = $2, scanned_at = now(), fault = NULL, fault_since = NULL, fault_lasts = false WHERE chain_id = $1";

/** $2: the fault. $3: it does not end by itself. */
export const NOTE_FAULT =
  "UPDATE chain_scans SET fault = $2, fault_lasts = $3, fault_since = coalesce(fault_since, now()) WHERE chain_id = $1";

/** The cursor moves forward only. $2 block, $3 its hash. */
export const MOVE_CURSOR = `
  WITH moved AS (
    UPDATE chain_sync_state SET last_scanned_block = $2, last_scan_at = now()
      WHERE chain_id = $1 AND coalesce(last_scanned_block, 0) <= $2 RETURNING chain_id
  )
  UPDATE chain_scans s SET hash_block = $2, block_hash = $3 FROM moved WHERE s.chain_id = moved.chain_id`;

/** After a reorganisation: $2 blocks back, not before the first one. */
export const STEP_BACK = `
  UPDATE chain_sync_state c
    SET last_scanned_block = least(c.last_scanned_block, greatest(s.first_block, c.last_scanned_block - $2))
    FROM chain_scans s WHERE s.chain_id = $1 AND c.chain_id = $1`;
