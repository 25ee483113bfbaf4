import type { PostgresPool } from "../database/postgres.ts";
import { databaseErrorOf } from "../database/session.ts";
import { messageOf, OperatorError } from "../errors.ts";
import type { Announcement, Release, Signed, TrustStatement } from "./announcement.ts";

/** A service's connection pool. */
type Database = Pick<PostgresPool, "query">;

/** The result of an announcement. */
export type AnnounceOutcome =
  /** This statement gave the name to the key and created its descriptor. */
  | { readonly outcome: "Reserved"; readonly reservation: string }
  /** The key already had the name. Its descriptor now has this announcement's data. */
  | { readonly outcome: "AlreadyOwned"; readonly reservation: string }
  | { readonly outcome: "TakenByOther" }
  /** Signed too long ago, or in the future, by the database's clock. */
  | { readonly outcome: "OutsideWindow"; readonly databaseTime: Date }
  /** Not newer than the key's last message about this name: a replay, or a message that arrived late. */
  | { readonly outcome: "NotNewer" }
  | { readonly outcome: "OverQuota" }
  /** The key does not own the name, and no invite lets it register the name. */
  | { readonly outcome: "NotInvited" }
  /** The name was free, but it had a descriptor. That must not happen: a bug or manipulation. */
  | { readonly outcome: "DescriptorInTheWay" };

/** The result of a release. */
export type ReleaseOutcome = "Released" | "NotReleased" | "OutsideWindow";

/** A node as the pool knows it. */
export interface NodeEntry {
  readonly name: string;
  readonly peerId: string;
  readonly addresses: readonly string[];
  readonly reservedAt: Date;
  /** When the node signed this entry. */
  readonly announcedAt: Date;
  /** Made with the node's key over the announcement, so that every reader can check it. */
  readonly signature: string;
}

/** Who may register a name that is not its own yet. The owner of a name may always announce it again. */
export interface Admission {
  /** True: anybody. */
  readonly isOpen: boolean;
  /** The id of the invite that the announcement carries, with its signature checked. Null: none. */
  readonly inviteId: string | null;
}

/** How far a signer's clock may be from the database's, in seconds. */
export const WINDOW_SECONDS = 300;
const TIMEOUT_MS = 10_000;

/**
 * Processes one announcement whose signature has been checked. It is a single statement, so it takes effect
 * completely or not at all. Constraints decide races (migrations/021_node_names.sql), not earlier reads: the second
 * announcement of a name waits for the first and then sees its owner. Announcements of one owner wait for each
 * other at its row in node_owners, whose CHECK is the quota. The first key that uses an invite binds it: a second
 * one waits at the invite's row, and then finds it bound. The owner of a name uses up a new invite too: so the master
 * sees that the node has what this invite contains.
 */
export async function announceName(
  database: Database,
  { message, signature }: Signed<Announcement>,
  namesPerOwner: number,
  { isOpen, inviteId }: Admission,
): Promise<AnnounceOutcome> {
  const { pool, name, peerId, addresses, time } = message;
  const signed = [pool, name, peerId, time, addresses, signature];
  const values = [...signed, namesPerOwner, WINDOW_SECONDS, inviteId, isOpen];
  try {
    const [row] = await database.query<AnnounceRow>(ANNOUNCE, values, { timeoutMs: TIMEOUT_MS });
    if (row === undefined) throw new Error("the announcement statement returned no row");
    return outcomeOf(row);
  } catch (thrown) {
    const constraint = constraintOf(thrown);
    if (constraint === "node_owners_quota") return { outcome: "OverQuota" };
    if (constraint === "node_descriptors_pkey") return { outcome: "DescriptorInTheWay" };
    throw thrown;
  }
}

interface AnnounceRow extends Record<string, unknown> {
  readonly in_window: boolean;
  readonly is_newer: boolean;
  readonly is_admitted: boolean;
  readonly at: Date;
  /** The name's reservation if the key owns it now. */
  readonly reservation: string | null;
  readonly is_fresh: boolean;
  readonly is_refreshed: boolean;
}

function outcomeOf({
  in_window,
  is_newer,
  is_admitted,
  at,
  reservation,
  is_fresh,
  is_refreshed,
}: AnnounceRow): AnnounceOutcome {
  if (!in_window) return { outcome: "OutsideWindow", databaseTime: at };
  if (!is_newer) return { outcome: "NotNewer" };
  if (!is_admitted) return { outcome: "NotInvited" };
  if (reservation === null) return { outcome: "TakenByOther" };
  if (is_fresh) return { outcome: "Reserved", reservation };
  return is_refreshed ? { outcome: "AlreadyOwned", reservation } : { outcome: "NotNewer" };
}

/**
 * `claim` returns a row if the key owns the name afterwards: inserted, or locked and unchanged.
 * DO UPDATE ... WHERE reads the newest version of the row, which a SELECT in this statement could not see.
 * `seeded` has no ON CONFLICT on purpose.
 */
const ANNOUNCE = `
  WITH attempt AS MATERIALIZED (
    SELECT gen_random_uuid() AS id, now() AS at, $4::timestamptz AS said,
      abs(extract(epoch FROM now() - $4::timestamptz)) <= $8::integer AS in_window,
      NOT EXISTS (
        SELECT FROM node_releases r WHERE r.pool = $1 AND r.name = $2 AND r.owner = $3 AND r.said >= $4::timestamptz
      ) AS is_newer,
      EXISTS (SELECT FROM node_names n WHERE n.pool = $1 AND n.name = $2 AND n.owner = $3) AS is_owner
  ), bound AS (
    UPDATE invites i SET bound_peer = $3, bound_at = coalesce(i.bound_at, attempt.at) FROM attempt
      WHERE i.pool = $1 AND i.id = $9::text AND in_window AND is_newer
        AND (i.bound_peer IS NULL OR NOT is_owner)
        AND i.revoked_at IS NULL AND (i.name IS NULL OR i.name = $2)
        AND (i.bound_peer = $3 OR (i.bound_peer IS NULL AND i.expires_at > attempt.at))
      RETURNING i.id
  ), admitted AS MATERIALIZED (
    SELECT is_owner OR $10::boolean OR EXISTS (SELECT FROM bound) AS is_admitted FROM attempt
  ), claim AS (
    INSERT INTO node_names (pool, name, owner, reservation, reserved_at)
      SELECT $1, $2, $3, id, at FROM attempt, admitted WHERE in_window AND is_newer AND is_admitted
      ON CONFLICT (pool, name) DO UPDATE SET owner = EXCLUDED.owner WHERE node_names.owner = EXCLUDED.owner
      RETURNING reservation
  ), fresh AS (
    SELECT id, at, said FROM claim JOIN attempt ON claim.reservation = attempt.id
  ), counted AS (
    INSERT INTO node_owners (pool, owner, names, quota)
      SELECT $1, $3, 1, $7::integer FROM fresh
      ON CONFLICT (pool, owner) DO UPDATE SET names = node_owners.names + 1, quota = EXCLUDED.quota
  ), seeded AS (
    INSERT INTO node_descriptors (pool, name, addresses, said, signature, revision, updated_at)
      SELECT $1, $2, $5::text[], said, $6, 1, at FROM fresh
  ), refreshed AS (
    INSERT INTO node_descriptors (pool, name, addresses, said, signature, revision, updated_at)
      SELECT $1, $2, $5::text[], said, $6, 1, at FROM claim JOIN attempt ON claim.reservation <> attempt.id
      ON CONFLICT (pool, name) DO UPDATE SET addresses = EXCLUDED.addresses, said = EXCLUDED.said,
        signature = EXCLUDED.signature, revision = node_descriptors.revision + 1, updated_at = EXCLUDED.updated_at
        WHERE node_descriptors.said < EXCLUDED.said
      RETURNING revision
  )
  SELECT in_window, is_newer, is_admitted, at, (SELECT reservation FROM claim) AS reservation,
    EXISTS (SELECT FROM fresh) AS is_fresh, EXISTS (SELECT FROM refreshed) AS is_refreshed
  FROM attempt, admitted`;

/**
 * Releases a name if it belongs to that key. With a reservation, releases only that reservation, and only if nobody
 * has announced the name since: a failed attempt undoes only its own work.
 */
export async function releaseName(
  database: Database,
  { pool, name, peerId, time, reservation }: Release,
): Promise<ReleaseOutcome> {
  const values = [pool, name, peerId, time, reservation, WINDOW_SECONDS];
  const [row] = await database.query<{ in_window: boolean; is_released: boolean }>(RELEASE, values, {
    timeoutMs: TIMEOUT_MS,
  });
  if (row?.in_window !== true) return "OutsideWindow";
  return row.is_released ? "Released" : "NotReleased";
}

/**
 * Locks the name before its descriptor, as ANNOUNCE does. A release stays recorded as long as an older announcement
 * could still be in its time window. Each release deletes records that are much older.
 */
const RELEASE = `
  WITH attempt AS MATERIALIZED (
    SELECT now() AS at, $4::timestamptz AS said, abs(extract(epoch FROM now() - $4::timestamptz)) <= $6::integer AS in_window
  ), held AS MATERIALIZED (
    SELECT n.pool, n.name, n.owner FROM node_names n, attempt
      WHERE n.pool = $1 AND n.name = $2 AND n.owner = $3 AND in_window
        AND ($5::uuid IS NULL OR n.reservation = $5::uuid)
      FOR UPDATE OF n
  ), described AS (
    DELETE FROM node_descriptors d USING held, attempt
      WHERE d.pool = held.pool AND d.name = held.name AND d.said < attempt.said
        AND ($5::uuid IS NULL OR d.revision = 1)
      RETURNING d.pool, d.name
  ), named AS (
    DELETE FROM node_names n USING described
      WHERE n.pool = described.pool AND n.name = described.name AND n.owner = $3
      RETURNING n.pool, n.name, n.owner
  ), counted AS (
    UPDATE node_owners o SET names = o.names - 1 FROM named WHERE o.pool = named.pool AND o.owner = named.owner
  ), remembered AS (
    INSERT INTO node_releases (pool, name, owner, said, released_at)
      SELECT pool, name, owner, said, at FROM named, attempt
      ON CONFLICT (pool, name, owner) DO UPDATE SET said = EXCLUDED.said, released_at = EXCLUDED.released_at
  ), forgotten AS (
    DELETE FROM node_releases r USING attempt
      WHERE r.released_at < attempt.at - interval '1 day' AND (r.pool, r.name, r.owner) <> ($1, $2, $3)
  )
  SELECT in_window, EXISTS (SELECT FROM named) AS is_released FROM attempt`;

/** The result of a statement of trust. */
export type TrustOutcome = "Recorded" | "NotOwner" | "NotNewer" | "OutsideWindow";

/** Records which cluster peers a node trusts, if its key owns the name. The signature must have been checked. */
export async function recordTrust(
  database: Database,
  { pool, name, peerId, time, trusts }: TrustStatement,
): Promise<TrustOutcome> {
  const values = [pool, name, peerId, time, [...trusts], WINDOW_SECONDS];
  const [row] = await database.query<{ in_window: boolean; is_owner: boolean; is_recorded: boolean }>(
    TRUST,
    values,
    { timeoutMs: TIMEOUT_MS },
  );
  if (row?.in_window !== true) return "OutsideWindow";
  if (!row.is_owner) return "NotOwner";
  return row.is_recorded ? "Recorded" : "NotNewer";
}

const TRUST = `
  WITH attempt AS MATERIALIZED (
    SELECT now() AS at, $4::timestamptz AS said, abs(extract(epoch FROM now() - $4::timestamptz)) <= $6::integer AS in_window,
      EXISTS (SELECT FROM node_names n WHERE n.pool = $1 AND n.name = $2 AND n.owner = $3) AS is_owner
  ), recorded AS (
    INSERT INTO node_trust (pool, owner, trusts, said, updated_at)
      SELECT $1, $3, $5::text[], said, at FROM attempt WHERE in_window AND is_owner
      ON CONFLICT (pool, owner) DO UPDATE SET trusts = EXCLUDED.trusts, said = EXCLUDED.said, updated_at = EXCLUDED.updated_at
        WHERE node_trust.said < EXCLUDED.said
      RETURNING owner
  )
  SELECT in_window, is_owner, EXISTS (SELECT FROM recorded) AS is_recorded FROM attempt`;

/** The cluster peers that a node said it trusts; null if it has not said. */
export async function readTrustOf(
  database: Database,
  pool: string,
  owner: string,
): Promise<readonly string[] | null> {
  const sql = "SELECT trusts FROM node_trust WHERE pool = $1 AND owner = $2";
  const [row] = await database.query<{ trusts: readonly string[] }>(sql, [pool, owner], {
    timeoutMs: TIMEOUT_MS,
  });
  return row?.trusts ?? null;
}

/** The node with that name, or null. */
export async function readName(database: Database, pool: string, name: string): Promise<NodeEntry | null> {
  const [row] = await database.query<NodeRow>(`${LIST} AND name = $2`, [pool, name], {
    timeoutMs: TIMEOUT_MS,
  });
  return row === undefined ? null : entryOf(row);
}

/** How many names a key has in this pool. */
export async function countNamesOf(database: Database, pool: string, owner: string): Promise<number> {
  const sql = "SELECT names FROM node_owners WHERE pool = $1 AND owner = $2";
  const [row] = await database.query<{ names: number }>(sql, [pool, owner], { timeoutMs: TIMEOUT_MS });
  return row?.names ?? 0;
}

/** Up to `limit` nodes sorted by name, starting after `after` (null: from the first). */
export async function listNames(
  database: Database,
  pool: string,
  page: { readonly after: string | null; readonly limit: number },
): Promise<readonly NodeEntry[]> {
  const sql = `${LIST} AND ($2::text IS NULL OR name COLLATE "C" > $2) ORDER BY name COLLATE "C" LIMIT $3`;
  const rows = await database.query<NodeRow>(sql, [pool, page.after, page.limit], { timeoutMs: TIMEOUT_MS });
  return rows.map(entryOf);
}

interface NodeRow extends Record<string, unknown> {
  readonly name: string;
  readonly owner: string;
  readonly addresses: readonly string[];
  readonly reserved_at: Date;
  readonly said: Date;
  readonly signature: string;
}

const LIST = `
  SELECT name, owner, addresses, reserved_at, said, signature
  FROM node_names JOIN node_descriptors USING (pool, name) WHERE pool = $1`;

function entryOf({ name, owner, addresses, reserved_at, said, signature }: NodeRow): NodeEntry {
  return { name, peerId: owner, addresses, reservedAt: reserved_at, announcedAt: said, signature };
}

/** Reads rows in a session that can only read. */
type ReadRows = <Row extends Record<string, unknown>>(
  sql: string,
  values: readonly unknown[],
) => Promise<readonly Row[]>;

/** Who holds a name. */
interface NameOwner {
  readonly id: string;
  /** Its first name. */
  readonly name: string;
  /** When it last announced a name, by the database's clock, as ISO text. */
  readonly announcedAt: string | null;
}

/**
 * The peer ids that hold a name in this pool, each once. Throws an OperatorError if the database does not give them: also
 * if it has no such table yet.
 */
export async function readOwners(readRows: ReadRows, pool: string): Promise<readonly NameOwner[]> {
  try {
    const rows = await readRows<{ owner: string; name: string; announced_at: Date | null }>(OWNERS, [pool]);
    return rows.map(({ owner, name, announced_at }) => ({
      id: owner,
      name,
      announcedAt: announced_at?.toISOString() ?? null,
    }));
  } catch (thrown) {
    if (databaseErrorOf(thrown) === null) throw thrown;
    throw new OperatorError({
      exit: "unavailable",
      what: `The database refused to list the names of the nodes: ${messageOf(thrown)}.`,
      remedy: "Look at `fula-node migrate status`, then run this again.",
      cause: thrown,
    });
  }
}

const OWNERS = `
  SELECT n.owner, min(n.name COLLATE "C") AS name, max(d.updated_at) AS announced_at
  FROM node_names n LEFT JOIN node_descriptors d USING (pool, name)
  WHERE n.pool = $1 GROUP BY n.owner ORDER BY n.owner`;

/** The constraint that PostgreSQL names in a violation (SQLSTATE class 23). */
function constraintOf(thrown: unknown): string | null {
  const { code, constraint } = (thrown ?? {}) as { readonly code?: unknown; readonly constraint?: unknown };
  return typeof code === "string" && code.startsWith("23") && typeof constraint === "string"
    ? constraint
    : null;
}
