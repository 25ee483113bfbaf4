import type { Client } from "pg";
import { type Log, messageOf } from "../errors.ts";
import type { PostgresPool } from "./postgres.ts";

/** A master as it records itself in the table `masters` (022_masters.sql). */
export interface MasterRecord {
  /** Empty for a master that names no pool. */
  readonly pool: string;
  /** MASTER_ID. */
  readonly id: string;
  readonly name: string;
  /** The guarded flags that it uses, sorted. */
  readonly flags: readonly string[];
  /** A hash of the machine's own id. */
  readonly machine: string;
}

/** One row of the table. */
export interface MasterRow extends Omit<MasterRecord, "machine"> {
  /** Null in a row that was taken over from 0.1.0, which knew masters by name alone. */
  readonly machine: string | null;
  /** The version of fula-node that wrote it. */
  readonly version: string;
  /** When it was last written, by a join or by its storage API every five minutes; UTC, ISO 8601. */
  readonly heartbeatAt: string;
}

/** Every master of this database, by name. Null if there is no such table yet. */
export async function readMasters(client: Client): Promise<readonly MasterRow[] | null> {
  if (!(await hasTable(client, "public.masters"))) return null;
  const { rows } = await client.query<MasterRow>(MASTERS);
  return rows;
}

/** Lists every master of this database, by name, as MasterRow. */
export const MASTERS = `
  SELECT pool, id, name, flags, version, machine,
    to_char(heartbeat_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS "heartbeatAt"
  FROM public.masters ORDER BY name, id`;

/**
 * Writes a master's row, in one statement. A row of 0.1.0 with its name goes once these flags cover it: whatever else it
 * names may be in use on another machine of that name, which has not recorded itself yet. Returns false if there is no
 * such table yet.
 */
export async function recordMaster(client: Client, master: MasterRecord, version: string): Promise<boolean> {
  if (!(await hasTable(client, "public.masters"))) return false;
  const { pool, id, name, flags, machine } = master;
  await client.query(
    `WITH other_pools AS (DELETE FROM public.masters WHERE id = $2 AND pool <> $1),
       taken_over AS (DELETE FROM public.masters WHERE machine IS NULL AND name = $3 AND flags <@ $4::text[])
     INSERT INTO public.masters (pool, id, name, flags, version, machine, first_seen_at, heartbeat_at)
     VALUES ($1, $2, $3, $4, $5, $6, now(), now())
     ON CONFLICT (pool, id) DO UPDATE SET name = excluded.name, flags = excluded.flags, version = excluded.version,
       machine = excluded.machine, heartbeat_at = excluded.heartbeat_at`,
    [pool, id, name, [...flags], version, machine],
  );
  return true;
}

/**
 * Removes a master that leaves. Without an identity (its `.env` is of 0.1.0), what 0.1.0 recorded under its name goes,
 * wherever that lies.
 */
export async function forgetMaster(
  client: Client,
  { id, name }: { readonly id: string | null; readonly name: string },
): Promise<void> {
  if (await hasTable(client, "public.masters")) {
    const [condition, value] = id === null ? ["machine IS NULL AND name = $1", name] : ["id = $1", id];
    await client.query(`DELETE FROM public.masters WHERE ${condition}`, [value]);
  }
  if (id === null && (await hasTable(client, "fula_node.flags_in_use")))
    await client.query("DELETE FROM fula_node.flags_in_use WHERE master = $1", [name]);
}

const BEAT_EVERY_MS = 5 * 60_000;

/**
 * Says every five minutes in the table that this master is alive, the first time at once. Returns a function that ends
 * it. A master that has not recorded itself yet beats nothing; `log` gets a line when beating starts to fail.
 */
export function keepBeating(
  pool: Pick<PostgresPool, "query">,
  id: string,
  { log, everyMs = BEAT_EVERY_MS }: { readonly log: Log; readonly everyMs?: number },
): () => void {
  let works = true;
  const beat = async (): Promise<void> => {
    try {
      await pool.query("UPDATE public.masters SET heartbeat_at = now() WHERE id = $1", [id]);
      works = true;
    } catch (thrown) {
      if (works) log(`the heartbeat of this master failed: ${messageOf(thrown)}`, "warn");
      works = false;
    }
  };
  void beat();
  const timer = setInterval(() => void beat(), everyMs).unref();
  return () => clearInterval(timer);
}

async function hasTable(client: Client, name: string): Promise<boolean> {
  const { rows } = await client.query<{ there: boolean }>("SELECT to_regclass($1) IS NOT NULL AS there", [
    name,
  ]);
  return rows[0]?.there === true;
}
