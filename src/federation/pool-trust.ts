import { dropMaster, type MasterPeer, type RemovedMaster, SILENT_MASTER_MS } from "../database/masters.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { OperatorError } from "../errors.ts";
import { isPeerId } from "../settings/address.ts";
import { doesTrust } from "./writer-trust.ts";

/** A master of the pool, as its database knows it. */
export interface PoolMaster {
  readonly id: string;
  readonly name: string;
  /** The version of fula-node that wrote its record. */
  readonly version: string;
  /** UTC, ISO 8601. */
  readonly heartbeatAt: string;
  /** So long ago by the clock of the database, in ms: that of this machine may be wrong. */
  readonly heartbeatAgeMs: number;
  /** Null: an older fula-node recorded it, without its ipfs-cluster. */
  readonly peer: MasterPeer | null;
  /** True if it was heard of within the last minutes: it may still run. */
  readonly isHeard: boolean;
}

/** A storage node, and the cluster peers that it trusts. Null: it has not said; it has an older fula-node. */
export interface NodeTrust {
  readonly name: string;
  readonly peerId: string;
  readonly trusts: readonly string[] | null;
}

/** Who belongs to a pool, and who trusts whom. */
export interface PoolTrust {
  readonly masters: readonly PoolMaster[];
  readonly removed: readonly RemovedMaster[];
  readonly nodes: readonly NodeTrust[];
}

type Database = Pick<PostgresPool, "query">;

/** Reads the masters, the removed ones and the nodes of a pool, each by name. */
export async function readPoolTrust(database: Database, pool: string): Promise<PoolTrust> {
  const [masters, removed, nodes] = await Promise.all([
    database.query<MasterRow>(MASTERS, [pool, SILENT_MASTER_MS]),
    database.query<RemovedMaster & Record<string, unknown>>(REMOVED, [pool]),
    database.query<NodeTrust & Record<string, unknown>>(NODES, [pool]),
  ]);
  return {
    masters: masters.map(({ peerId, addresses, trusts, ...master }) => ({
      ...master,
      peer: peerId === null ? null : { peerId, addresses: addresses ?? [], trusts },
    })),
    removed,
    nodes,
  };
}

/**
 * Finds a master that came to the pool before this one, runs, and does not trust this one's cluster peer: what this one pins
 * would stay in its own pinset. The names of both; null if there is none, or if this master is not recorded.
 */
export async function findDistrusting(database: Database, id: string): Promise<Distrusting | null> {
  const [row] = await database.query<Distrusting>(
    `SELECT m.name AS by, own.name AS own FROM masters own JOIN masters m ON m.pool = own.pool AND (m.first_seen_at, m.id) < (own.first_seen_at, own.id)
       JOIN master_peers p ON p.pool = m.pool AND p.id = m.id
       LEFT JOIN master_peers mine ON mine.pool = own.pool AND mine.id = own.id
     WHERE own.id = $1 AND now() - m.heartbeat_at < $2 * interval '1 ms' AND p.trusts IS NOT NULL
       AND NOT '*' = ANY (p.trusts) AND NOT coalesce(mine.peer_id = ANY (p.trusts), false)
     ORDER BY m.name LIMIT 1`,
    [id, SILENT_MASTER_MS],
  );
  return row ?? null;
}

/** By name: a master that does not trust another one's cluster peer. */
export interface Distrusting extends Record<string, unknown> {
  readonly by: string;
  readonly own: string;
}

interface MasterRow extends Record<string, unknown> {
  readonly id: string;
  readonly name: string;
  readonly version: string;
  readonly heartbeatAt: string;
  readonly heartbeatAgeMs: number;
  readonly isHeard: boolean;
  readonly peerId: string | null;
  readonly addresses: readonly string[] | null;
  readonly trusts: readonly string[] | null;
}

const utc = (column: string): string => `to_char(${column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`;

/** Rows that were taken over from 0.1.0 have no machine: they are no masters, only their flags. */
const MASTERS = `
  SELECT m.id, m.name, m.version, ${utc("m.heartbeat_at")} AS "heartbeatAt",
    extract(epoch FROM now() - m.heartbeat_at)::float8 * 1000 AS "heartbeatAgeMs",
    now() - m.heartbeat_at < $2 * interval '1 ms' AS "isHeard", p.peer_id AS "peerId", p.addresses, p.trusts
  FROM masters m LEFT JOIN master_peers p USING (pool, id)
  WHERE m.pool = $1 AND m.machine IS NOT NULL ORDER BY m.name, m.id`;

const REMOVED = `
  SELECT pool, id, name, peer_id AS "peerId", ${utc("removed_at")} AS "removedAt", removed_by AS "removedBy"
  FROM removed_masters WHERE pool = $1 ORDER BY name, id`;

/** A node that holds several names shows under its first. */
const NODES = `
  SELECT min(n.name COLLATE "C") AS name, n.owner AS "peerId", t.trusts
  FROM node_names n LEFT JOIN node_trust t USING (pool, owner)
  WHERE n.pool = $1 GROUP BY n.owner, t.trusts ORDER BY 1`;

/** Which master a peer id, a name or an identity means. `several`: a name that is not clear. */
export type Meant =
  | { readonly kind: "master"; readonly master: PoolMaster }
  | { readonly kind: "removed"; readonly removed: RemovedMaster }
  | { readonly kind: "peer"; readonly peerId: string }
  | { readonly kind: "several"; readonly ids: readonly string[] }
  | { readonly kind: "nobody" };

/** Finds a master by peer id, MASTER_ID or name: one of the pool first, then a removed one, then just a peer. */
export function findMeant({ masters, removed }: PoolTrust, text: string): Meant {
  const found = masters.filter(({ id, name, peer }) => [id, name, peer?.peerId].includes(text));
  if (found.length > 1) return { kind: "several", ids: found.map(({ id, peer }) => peer?.peerId ?? id) };
  if (found[0] !== undefined) return { kind: "master", master: found[0] };
  const gone = removed.filter(({ id, name, peerId }) => [id, name, peerId].includes(text));
  if (gone.length > 1) return { kind: "several", ids: gone.map(({ id }) => id) };
  if (gone[0] !== undefined) return { kind: "removed", removed: gone[0] };
  return isPeerId(text) ? { kind: "peer", peerId: text } : { kind: "nobody" };
}

/** The master that has taken the place of a removed one: with its name, or with its cluster peer. */
export function findHeir({ masters }: PoolTrust, removed: RemovedMaster): PoolMaster | null {
  return (
    masters.find(
      ({ name, peer }) =>
        name === removed.name || (removed.peerId !== null && peer?.peerId === removed.peerId),
    ) ?? null
  );
}

/** Throws (`foreign`) if another master has taken the place of a removed one. */
export function refuseReplaced(trust: PoolTrust, removed: PoolTrust["removed"][number]): void {
  const heir = findHeir(trust, removed);
  if (heir === null) return;
  throw new OperatorError({
    exit: "foreign",
    what: `Another master has taken the place of ${removed.name}: ${heir.name} (${heir.peer?.peerId ?? heir.id}).`,
    why: "Nobody could distinguish two masters with one name or one cluster peer.",
    remedy:
      "Let the machine join under a new name and identity: see docs/lost-master.md#another-has-its-place. Or remove the other one first.",
  });
}

/** What is wrong with the trust in a pool, seen from one of its masters. */
export interface TrustFaults {
  /** Other masters that the own ipfs-cluster does not trust. */
  readonly untrusted: readonly PoolMaster[];
  /** Other masters whose ipfs-cluster does not trust this one. */
  readonly distrusting: readonly PoolMaster[];
  /** Removed masters whose peer somebody still trusts, with the names of who does; the own name is null. */
  readonly lingering: readonly { readonly removed: RemovedMaster; readonly by: readonly (string | null)[] }[];
  /** Nodes that do not trust every master, and the names of the masters that each lacks. */
  readonly lacking: readonly { readonly node: NodeTrust; readonly masters: readonly string[] }[];
  /** Nodes that have not said whom they trust. */
  readonly silent: readonly NodeTrust[];
}

/** Compares who trusts whom with who is a master. `own.trusts` is null if it is not known. */
export function findTrustFaults(
  { masters, removed, nodes }: PoolTrust,
  own: { readonly id: string; readonly trusts: readonly string[] | null },
): TrustFaults {
  const others = masters.filter(({ id }) => id !== own.id);
  const ownPeer = masters.find(({ id }) => id === own.id)?.peer?.peerId ?? null;
  const { trusts } = own;
  const untrusted =
    trusts === null ? [] : others.filter(({ peer }) => peer !== null && !doesTrust(trusts, peer.peerId));
  const distrusting = others.filter(
    ({ peer }) => ownPeer !== null && peer?.trusts != null && !doesTrust(peer.trusts, ownPeer),
  );
  const who = [
    { name: null, trusts },
    ...others.map(({ name, peer }) => ({ name, trusts: peer?.trusts ?? null })),
    ...nodes,
  ];
  const lingering = removed.flatMap((one) => {
    const { peerId } = one;
    if (peerId === null || masters.some(({ peer }) => peer?.peerId === peerId)) return [];
    const by = who.filter((each) => each.trusts?.includes(peerId) === true).map(({ name }) => name);
    return by.length === 0 ? [] : [{ removed: one, by }];
  });
  const lacking = nodes.flatMap((node) => {
    const missing = masters.filter(
      ({ peer }) => node.trusts !== null && peer !== null && !doesTrust(node.trusts, peer.peerId),
    );
    return missing.length === 0 ? [] : [{ node, masters: missing.map(({ name }) => name) }];
  });
  const silent = masters.length > 1 ? nodes.filter((node) => node.trusts === null) : [];
  return { untrusted, distrusting, lingering, lacking, silent };
}

/**
 * Removes a master that is gone: its row with its flags, its peer, and its lease of the billing, in one transaction. Returns
 * false if it was removed already.
 */
export async function removeMaster(
  database: Pick<PostgresPool, "transaction">,
  { id, by }: { readonly id: string; readonly by: string },
): Promise<boolean> {
  return database.transaction(async (session) => {
    let dropped = 0;
    for (const change of dropMaster({ id, by })) dropped += (await session.query(...change)).length;
    await session.query(END_LEASE, [id]);
    return dropped > 0;
  });
}

/** The session that holds the lease ends, also one whose machine is gone: another master then takes over at once. */
const END_LEASE = `
  WITH held AS (
    SELECT l.name, l.pid, l.backend_start FROM cron_lease l WHERE l.holder = $1 AND l.pid IS NOT NULL FOR UPDATE
  ), freed AS (
    UPDATE cron_lease l SET pid = NULL, backend_start = NULL FROM held WHERE l.name = held.name
  )
  SELECT pg_terminate_backend(a.pid) AS ended
  FROM held JOIN pg_stat_activity a ON a.pid = held.pid AND a.backend_start = held.backend_start`;

/** Lets a removed master come back. It is a master again once it joins. */
export async function takeBack(database: Database, { pool, id }: RemovedMaster): Promise<void> {
  await database.query("DELETE FROM removed_masters WHERE pool = $1 AND id = $2", [pool, id]);
}

/** Who else has to change, one line each. */
export function describeRest(
  { masters, nodes }: PoolTrust,
  {
    verb,
    ownId,
    peerId,
  }: {
    readonly verb: string;
    readonly ownId: string | null;
    readonly peerId: string | null;
  },
): readonly string[] {
  if (peerId === null) return [];
  const isAdd = verb === "trust add";
  const differs = (trusts: readonly string[] | null | undefined) =>
    trusts != null && doesTrust(trusts, peerId) !== isAdd && !(trusts.includes("*") && !isAdd);
  const wrong = masters.filter(
    ({ id, peer }) => id !== ownId && peer?.peerId !== peerId && differs(peer?.trusts),
  );
  const wrongNodes = nodes.filter((node) => differs(node.trusts));
  return [
    ...wrong.map(({ name }) => `On the master ${name}: fula-node ${verb} ${peerId}`),
    ...wrongNodes.map(
      ({ name }) =>
        `On the storage node ${name}: fula-node join-as-storage-node --accept-pool-change, with a new invite or by the pool API`,
    ),
  ];
}
