import type { PostgresPool } from "../database/postgres.ts";
import { countOf } from "../units.ts";

type Database = Pick<PostgresPool, "query">;

/** An invite as the master's database has it (migrations/023_invites.sql). It contains nothing that could register a name. */
export interface InviteRecord {
  readonly id: string;
  readonly kind: InviteKind;
  /** The only name that it may register; null: any one. */
  readonly name: string | null;
  /** The public key of the master that made it, as PEM. */
  readonly verifyingKey: string;
  readonly issuedAt: Date;
  readonly expiresAt: Date;
  readonly revokedAt: Date | null;
  /** The peer id of the node that used it first, or the MASTER_ID of the master, and when. */
  readonly boundPeer: string | null;
  readonly boundAt: Date | null;
  /** The names that this node has now, or the name of the master. */
  readonly boundNames: readonly string[];
}

/** What an invite is for (migrations/039_master_invites.sql). */
export type InviteKind = "node" | "master";

/** `used`: its node has registered with it. `expired`: nobody used it in time. */
export type InviteState = "unused" | "used" | "expired" | "revoked";

const TIMEOUT_MS = 10_000;

/** Stores a new invite. It must be stored before anybody gets it. */
export async function recordInvite(
  database: Database,
  pool: string,
  invite: Pick<InviteRecord, "id" | "kind" | "name" | "verifyingKey" | "issuedAt" | "expiresAt">,
): Promise<void> {
  const { id, kind, name, verifyingKey, issuedAt, expiresAt } = invite;
  await database.query(
    `${kind === "master" ? "WITH marked AS (INSERT INTO master_invites (pool, id) VALUES ($1, $2))" : ""}
     INSERT INTO invites (pool, id, name, verifying_key, issued_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)`,
    [pool, id, name, verifyingKey, issuedAt, expiresAt],
    { timeoutMs: TIMEOUT_MS },
  );
}

/** Every invite of the pool, the newest first. */
export async function listInvites(database: Database, pool: string): Promise<readonly InviteRecord[]> {
  const sql = `${SELECT} WHERE pool = $1 ORDER BY issued_at DESC, id`;
  return (await database.query<InviteRow>(sql, [pool], { timeoutMs: TIMEOUT_MS })).map(recordOf);
}

/** The invite with that id; null if there is none. */
export async function findInvite(database: Database, pool: string, id: string): Promise<InviteRecord | null> {
  const sql = `${SELECT} WHERE pool = $1 AND id = $2`;
  const [row] = await database.query<InviteRow>(sql, [pool, id], { timeoutMs: TIMEOUT_MS });
  return row === undefined ? null : recordOf(row);
}

/** Revokes an invite; an invite that was revoked before keeps its time. Returns the record, or null if there is none. */
export async function revokeInvite(
  database: Database,
  pool: string,
  id: string,
): Promise<InviteRecord | null> {
  const sql = "UPDATE invites SET revoked_at = coalesce(revoked_at, now()) WHERE pool = $1 AND id = $2";
  await database.query(sql, [pool, id], { timeoutMs: TIMEOUT_MS });
  return findInvite(database, pool, id);
}

/** Marks the invite of a master as used by it. The first one stays; a master that has used one before leaves others to others. */
export async function bindMasterInvite(
  database: Database,
  { pool, id, masterId }: { readonly pool: string; readonly id: string; readonly masterId: string },
): Promise<void> {
  const sql = `UPDATE invites SET bound_peer = $3, bound_at = now()
    WHERE pool = $1 AND id = $2 AND bound_peer IS NULL
      AND EXISTS (SELECT FROM master_invites m WHERE m.pool = $1 AND m.id = $2)
      AND NOT EXISTS (SELECT FROM invites o JOIN master_invites USING (pool, id) WHERE o.pool = $1 AND o.bound_peer = $3)`;
  await database.query(sql, [pool, id, masterId], { timeoutMs: TIMEOUT_MS });
}

interface InviteRow extends Record<string, unknown> {
  readonly id: string;
  readonly kind: InviteKind;
  readonly name: string | null;
  readonly verifying_key: string;
  readonly issued_at: Date;
  readonly expires_at: Date;
  readonly revoked_at: Date | null;
  readonly bound_peer: string | null;
  readonly bound_at: Date | null;
  readonly bound_names: readonly string[];
}

const SELECT = `
  SELECT id, kind, name, verifying_key, issued_at, expires_at, revoked_at, bound_peer, bound_at,
    ARRAY(SELECT name FROM (
            SELECT n.name FROM node_names n
            WHERE kind = 'node' AND n.pool = marked.pool AND n.owner = marked.bound_peer
            UNION ALL
            SELECT m.name FROM masters m
            WHERE kind = 'master' AND m.pool = marked.pool AND m.id = marked.bound_peer
          ) AS bound ORDER BY name COLLATE "C") AS bound_names
  FROM (SELECT invites.*, CASE WHEN master_invites.id IS NULL THEN 'node' ELSE 'master' END AS kind
        FROM invites LEFT JOIN master_invites USING (pool, id)) AS marked`;

function recordOf(row: InviteRow): InviteRecord {
  return {
    id: row.id,
    kind: row.kind,
    name: row.name,
    verifyingKey: row.verifying_key,
    issuedAt: row.issued_at,
    expiresAt: row.expires_at,
    revokedAt: row.revoked_at,
    boundPeer: row.bound_peer,
    boundAt: row.bound_at,
    boundNames: row.bound_names,
  };
}

/** The state of an invite at that time. */
export function stateOf({ revokedAt, boundPeer, expiresAt }: InviteRecord, now: Date): InviteState {
  if (revokedAt !== null) return "revoked";
  if (boundPeer !== null) return "used";
  return expiresAt.getTime() <= now.getTime() ? "expired" : "unused";
}

/** Why an invite does not register a name for a node: a code for programs, and a sentence. */
export interface InviteRefusal {
  readonly code:
    | "invite-missing"
    | "invite-unknown"
    | "invite-revoked"
    | "invite-used"
    | "invite-expired"
    | "invite-other-name";
  readonly error: string;
}

/** Whether an invite lets that node register that name: the same decision as in the registry's ANNOUNCE. A null peer id: a node without a key yet. */
export function holdsFor(
  { revokedAt, name: only, boundPeer, expiresAt }: InviteRecord,
  { name, peerId }: { readonly name: string; readonly peerId: string | null },
  now: Date,
): boolean {
  const isUnused = boundPeer === null && expiresAt.getTime() > now.getTime();
  const isItsOwn = boundPeer !== null && boundPeer === peerId;
  return revokedAt === null && (only === null || only === name) && (isUnused || isItsOwn);
}

/** The refusal of an announcement whose invite does not hold. `record` is null if no invite is known by its id. */
export function refusalOf(
  record: InviteRecord | null,
  { name, peerId }: { readonly name: string; readonly peerId: string | null },
  now: Date,
): InviteRefusal {
  if (record === null)
    return { code: "invite-unknown", error: "The invite of this node is not one of this pool." };
  if (record.revokedAt !== null)
    return {
      code: "invite-revoked",
      error: `The invite of this node was revoked at ${record.revokedAt.toISOString()}.`,
    };
  if (record.boundPeer !== null && record.boundPeer !== peerId)
    return { code: "invite-used", error: `The invite was used by another node (${record.boundPeer}).` };
  if (record.boundPeer === null && record.expiresAt.getTime() <= now.getTime())
    return {
      code: "invite-expired",
      error: `The invite of this node expired at ${record.expiresAt.toISOString()}.`,
    };
  return {
    code: "invite-other-name",
    error: `The invite is for the name ${record.name ?? "of another node"}, not for ${name}.`,
  };
}

/** The refusal of an announcement without an invite. */
export const NO_INVITE: InviteRefusal = {
  code: "invite-missing",
  error: "This master registers the names of invited nodes only.",
};

/** Who used an invite, for people: `berlin-1 (12D3KooW...)`. */
export function userOf({ boundPeer, boundNames }: InviteRecord): string {
  if (boundPeer === null) return "nobody";
  const [first, ...others] = boundNames;
  if (first === undefined) return `${boundPeer}, which has no name now`;
  return others.length === 0
    ? `${first} (${boundPeer})`
    : `${first} and ${countOf(others.length, "more name")} (${boundPeer})`;
}
