import type { PostgresPool } from "../database/postgres.ts";
import { type ParsedCid, usualSpellingsOf } from "./content-id.ts";

/**
 * Runs `work` while this process alone, of all masters on this database, sends or unpins the content, whatever its
 * spelling. Null if another one does just now. The lock belongs to a transaction, so it works through a pooler, and
 * PostgreSQL ends it if this process is gone, or stopped for longer than the lease: the transaction then fails.
 */
export async function underContentLock<Result>(
  pool: Pick<PostgresPool, "transaction">,
  cid: ParsedCid,
  leaseMs: number,
  work: (database: Pick<PostgresPool, "query">) => Promise<Result>,
): Promise<Result | null> {
  return pool.transaction(async (database) => {
    const [row] = await database.query<{ held: boolean }>(
      `SELECT set_config('idle_in_transaction_session_timeout', $2, true),
         pg_try_advisory_xact_lock(hashtextextended('fula-node content ' || $1, 0)) AS held`,
      [usualSpellingsOf(cid)[0], `${leaseMs}ms`],
      { name: "work-lock" },
    );
    if (row?.held !== true) return null;
    // If it fails, the transaction is gone, and its next statement says so.
    const alive = setInterval(() => void database.query("SELECT 1").catch(() => {}), leaseMs / 3);
    try {
      return await work(database);
    } finally {
      clearInterval(alive);
    }
  });
}
