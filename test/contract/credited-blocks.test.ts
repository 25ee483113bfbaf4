import { expect, test } from "vitest";
import { listen, migratorOf } from "../support/migrations.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";

describeOnPostgres("deposits", (postgres) => {
  test("a scan finds the credited ones of its blocks by an index, among many others", async () => {
    const target = await postgres.createDatabase();
    await migratorOf().up(target, listen());
    await sql(
      target,
      `INSERT INTO deposits (chain_id, tx_hash, log_index, from_address, amount, block_number, block_hash, account, credited_at)
       SELECT 8453, 'tx' || n, 0, 'from', 1, n, 'hash', 'account', now() FROM generate_series(1, 20000) n`,
    );
    await sql(target, "ANALYZE deposits");
    const plan = await sql(
      target,
      `EXPLAIN (FORMAT JSON) SELECT tx_hash FROM deposits
       WHERE chain_id = 8453 AND block_number BETWEEN 100 AND 200 AND account IS NOT NULL AND NOT tx_hash = ANY ('{tx1}')`,
    );
    expect(JSON.stringify(plan)).toContain("idx_deposits_credited_blocks");
  });
});
