import type { Client } from "pg";
import { type Log, messageOf, OperatorError } from "../errors.ts";
import type { PostgresPool } from "./postgres.ts";
import { databaseErrorOf } from "./session.ts";

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
  /** Its ipfs-cluster; null if it is not known. */
  readonly peer: MasterPeer | null;
}

/** The ipfs-cluster of a master (038_trust.sql). */
export interface MasterPeer {
  readonly peerId: string;
  /** Where other peers reach it: multiaddrs that end with `/p2p/` and the peer id. */
  readonly addresses: readonly string[];
  /** The peers that it trusts; `*` is every peer. Null: not known. */
  readonly trusts: readonly string[] | null;
}

/** A master that was removed from its pool. */
export interface RemovedMaster {
  readonly pool: string;
  readonly id: string;
  readonly name: string;
  /** Null: it never recorded one. */
  readonly peerId: string | null;
  /** UTC, ISO 8601. */
  readonly removedAt: string;
  /** The name of the master that removed it; its own if it left. */
  readonly removedBy: string;
}

/** One row of the table. */
export interface MasterRow extends Omit<MasterRecord, "machine"> {
  /** Null in a row that was taken over from 0.1.0, which knew masters by name alone. */
  readonly machine: string | null;
  /** The version of fula-node that wrote it. */
  readonly version: string;
  /** When it was last written, by a join or by its services every minute; UTC, ISO 8601. */
  readonly heartbeatAt: string;
  /** So long ago by the clock of the database, in ms: that of this machine may be wrong. */
  readonly heartbeatAgeMs: number;
}

/** Every master of this database, by name. Null if there is no such table yet. */
export async function readMasters(client: Client): Promise<readonly MasterRow[] | null> {
  if (!(await hasTable(client, "public.masters"))) return null;
  const { rows } = await client.query<Omit<MasterRow, "peer">>(
    `SELECT pool, id, name, flags, version, machine, ${utc("heartbeat_at")} AS "heartbeatAt",
       extract(epoch FROM now() - heartbeat_at)::float8 * 1000 AS "heartbeatAgeMs"
     FROM public.masters ORDER BY name, id`,
  );
  const peers = (await hasTable(client, PEERS))
    ? await client.query<MasterPeer & { readonly pool: string; readonly id: string }>(
        `SELECT pool, id, peer_id AS "peerId", addresses, trusts FROM ${PEERS}`,
      )
    : { rows: [] };
  return rows.map((row) => {
    const found = peers.rows.find(({ pool, id }) => pool === row.pool && id === row.id);
    if (found === undefined) return { ...row, peer: null };
    const { peerId, addresses, trusts } = found;
    return { ...row, peer: { peerId, addresses, trusts } };
  });
}

/** The masters that were removed from their pools, by name. None if there is no such table yet. */
export async function readRemovedMasters(client: Client): Promise<readonly RemovedMaster[]> {
  if (!(await hasTable(client, REMOVED))) return [];
  const { rows } = await client.query<RemovedMaster>(
    `SELECT ${REMOVED_COLUMNS} FROM ${REMOVED} ORDER BY name, id`,
  );
  return rows;
}

const PEERS = "public.master_peers";
const REMOVED = "public.removed_masters";

function utc(column: string): string {
  return `to_char(${column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`;
}

const REMOVED_COLUMNS = `pool, id, name, peer_id AS "peerId", ${utc("removed_at")} AS "removedAt", removed_by AS "removedBy"`;

/** The error (`foreign`) of a master that was removed from its pool. */
export function removedMaster({ name, removedAt, removedBy }: Omit<RemovedMaster, "pool" | "id" | "peerId">) {
  return new OperatorError({
    exit: "foreign",
    what: `The master ${name} was removed from its pool by ${removedBy}, ${removedAt}.`,
    why: "The other masters and the nodes do not trust it any more.",
    remedy: `To let it come back, run on another master of the pool: fula-node trust add ${name}. See docs/lost-master.md.`,
  });
}

/**
 * Writes a master's row, in one transaction. A row of 0.1.0 with its name goes once these flags cover it: whatever else it
 * names may be in use on another machine of that name, which has not recorded itself yet. Returns false if there is no
 * such table yet. Throws (`foreign`) if the master was removed.
 */
export async function recordMaster(client: Client, master: MasterRecord, version: string): Promise<boolean> {
  if (!(await hasTable(client, "public.masters"))) return false;
  const { pool, id, name, flags, machine, peer } = master;
  const hasPeers = await hasTable(client, PEERS);
  await client.query("BEGIN");
  try {
    if (hasPeers) {
      await client.query(LOCK);
      const { rows } = await client.query<RemovedMaster>(
        `SELECT ${REMOVED_COLUMNS} FROM ${REMOVED} WHERE id = $1`,
        [id],
      );
      if (rows[0] !== undefined) throw removedMaster(rows[0]);
    }
    await client.query(
      `WITH other_pools AS (DELETE FROM public.masters WHERE id = $2 AND pool <> $1),
         taken_over AS (DELETE FROM public.masters WHERE machine IS NULL AND name = $3 AND flags <@ $4::text[])
       INSERT INTO public.masters (pool, id, name, flags, version, machine, first_seen_at, heartbeat_at)
       VALUES ($1, $2, $3, $4, $5, $6, now(), now())
       ON CONFLICT (pool, id) DO UPDATE SET name = excluded.name, flags = excluded.flags, version = excluded.version,
         machine = excluded.machine, heartbeat_at = excluded.heartbeat_at`,
      [pool, id, name, [...flags], version, machine],
    );
    if (hasPeers && peer !== null)
      await client.query(
        `WITH other_pools AS (DELETE FROM ${PEERS} WHERE id = $2 AND pool <> $1)
         INSERT INTO ${PEERS} (pool, id, peer_id, addresses, trusts, updated_at) VALUES ($1, $2, $3, $4, $5, now())
         ON CONFLICT (pool, id) DO UPDATE SET peer_id = excluded.peer_id, addresses = excluded.addresses,
           trusts = excluded.trusts, updated_at = excluded.updated_at`,
        [pool, id, peer.peerId, [...peer.addresses], peer.trusts === null ? null : [...peer.trusts]],
      );
    await client.query("COMMIT");
  } catch (thrown) {
    // The session ends next, and with it the transaction.
    await client.query("ROLLBACK").catch(() => undefined);
    throw thrown;
  }
  return true;
}

/** One after the other: a master that records itself, and another one that removes it. */
const LOCK = "LOCK TABLE public.masters IN SHARE ROW EXCLUSIVE MODE";

/**
 * Removes a master that leaves. Without an identity (its `.env` is of 0.1.0), what 0.1.0 recorded under its name goes,
 * wherever that lies. Where other masters stay in its pool, it is remembered as removed: they and the nodes still trust it.
 */
export async function forgetMaster(
  client: Client,
  { id, name }: { readonly id: string | null; readonly name: string },
): Promise<void> {
  if (id !== null && (await hasTable(client, REMOVED))) {
    await client.query("BEGIN");
    for (const statement of dropMaster({ id, by: name })) await client.query(...statement);
    await client.query("COMMIT");
  } else if (await hasTable(client, "public.masters")) {
    const [condition, value] = id === null ? ["machine IS NULL AND name = $1", name] : ["id = $1", id];
    await client.query(`DELETE FROM public.masters WHERE ${condition}`, [value]);
  }
  if (id === null && (await hasTable(client, "fula_node.flags_in_use")))
    await client.query("DELETE FROM fula_node.flags_in_use WHERE master = $1", [name]);
}

/**
 * The statements, for one transaction, that remove a master: its row with its flags, its peer, and what it holds of the
 * billing. It is remembered as removed if other masters stay in its pool.
 */
export function dropMaster({
  id,
  by,
}: {
  readonly id: string;
  readonly by: string;
}): readonly (readonly [sql: string, values: unknown[]])[] {
  return [
    [LOCK, []],
    [
      `INSERT INTO ${REMOVED} (pool, id, name, peer_id, machine, removed_at, removed_by)
         SELECT m.pool, m.id, m.name, p.peer_id, m.machine, now(), $2
         FROM public.masters m LEFT JOIN ${PEERS} p USING (pool, id)
         WHERE m.id = $1 AND EXISTS (SELECT FROM public.masters o WHERE o.pool = m.pool AND o.id <> m.id AND o.machine IS NOT NULL)
         ON CONFLICT (pool, id) DO NOTHING`,
      [id, by],
    ],
    ["DELETE FROM public.masters WHERE id = $1 RETURNING id", [id]],
    [`DELETE FROM ${PEERS} WHERE id = $1`, [id]],
  ];
}

/** How often a running master says that it is alive. */
export const BEAT_EVERY_MS = 60_000;
/** A master that was heard of within this time may still run. */
export const SILENT_MASTER_MS = 10 * 60_000;

/**
 * Says every minute in the table that this master is alive, the first time at once. Returns a function that ends
 * it. A master that has not recorded itself yet beats nothing; `log` gets a line when beating starts to fail.
 */
export function keepBeating(
  pool: Pick<PostgresPool, "query">,
  id: string,
  {
    log,
    everyMs = BEAT_EVERY_MS,
    onRemoved = () => {},
  }: {
    readonly log: Log;
    readonly everyMs?: number;
    /** Called once the master is removed from its pool. */
    readonly onRemoved?: (removed: RemovedMaster) => void;
  },
): () => void {
  let works = true;
  const beat = async (): Promise<void> => {
    try {
      await pool.query("UPDATE public.masters SET heartbeat_at = now() WHERE id = $1", [id]);
      const removed = await findRemoval((sql, values) => pool.query(sql, values), id);
      if (removed !== null) onRemoved(removed);
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

/**
 * Whether this master was removed from its pool; null if it was not, also in a schema without that table. `query` is that
 * of a pool, or of a session, and its errors are thrown.
 */
export async function findRemoval(
  query: (sql: string, values: readonly unknown[]) => Promise<readonly Record<string, unknown>[]>,
  id: string,
): Promise<RemovedMaster | null> {
  try {
    const [row] = await query(`SELECT ${REMOVED_COLUMNS} FROM ${REMOVED} WHERE id = $1 LIMIT 1`, [id]);
    return row === undefined ? null : (row as unknown as RemovedMaster);
  } catch (thrown) {
    const { code } = (thrown ?? {}) as { readonly code?: unknown };
    if (code === "42P01") return null;
    throw thrown;
  }
}

/**
 * The MASTER_IDs of a pool's masters. None if the database does not answer, or refuses: whoever asks then knows only its own,
 * and learns from what else it asks that the database is away.
 */
export async function readMasterIds(
  query: (sql: string, values: readonly unknown[]) => Promise<readonly unknown[]>,
  pool: string,
): Promise<readonly string[]> {
  try {
    const rows = await query("SELECT id FROM public.masters WHERE pool = $1", [pool]);
    return rows.map((row) => (row as { readonly id: string }).id);
  } catch (thrown) {
    if (thrown instanceof OperatorError || databaseErrorOf(thrown) !== null) return [];
    throw thrown;
  }
}

async function hasTable(client: Client, name: string): Promise<boolean> {
  const { rows } = await client.query<{ there: boolean }>("SELECT to_regclass($1) IS NOT NULL AS there", [
    name,
  ]);
  return rows[0]?.there === true;
}
