import type { Client } from "pg";
import { settingsSql } from "./database-facts.ts";

/** A snapshot that others can read, until this transaction ends. */
export async function openExportedSnapshot(client: Client, timeoutMs: number): Promise<string> {
  await client.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
  // While pg_dump works, this session is idle; and if this process dies, the server ends what it had asked.
  await client.query(
    `SELECT set_config(name, CASE name WHEN 'client_connection_check_interval' THEN '1s' ELSE '${timeoutMs}ms' END, true)
     FROM pg_settings
     WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout', 'client_connection_check_interval')`,
  );
  await client.query(settingsSql(true));
  const { rows } = await client.query<{ id: string }>("SELECT pg_export_snapshot() AS id");
  return rows[0]?.id ?? "";
}
