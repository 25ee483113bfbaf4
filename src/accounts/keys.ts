import type { PostgresPool } from "../database/postgres.ts";
import { openText, readClaims } from "./api-key.ts";
import { accountOfName, SESSION_NAME } from "./sessions.ts";

type Database = Pick<PostgresPool, "query">;

/** A key of an account. The key itself is not in it. */
export interface ListedKey {
  /** The first characters of the sha256 of the key: `user revoke` takes them. */
  readonly id: string;
  /** Null for a key without a name, and if ENCRYPTION_KEY does not decrypt it. */
  readonly name: string | null;
  /** `full`; `upload`: only for uploading; `session`: only the pinning API knows it. */
  readonly kind: "full" | "upload" | "session";
  /** RFC 3339 in UTC; null where the database has no time. */
  readonly created: string | null;
  /** Null: until it is revoked. */
  readonly expires: string | null;
  /** When the storage API last saw it, to five minutes; null: never. */
  readonly lastUsed: string | null;
  readonly state: "active" | "expired" | "revoked";
  /** When it was revoked; null if it was not, and where the database has no time. */
  readonly revoked: string | null;
}

const ID_CHARACTERS = 12;
const MOST = 1_000;

/** The keys of an account, the newest first, with those that were revoked. At most 1000. Null if there is no such account. */
export async function listKeys(
  database: Database,
  account: string,
  encryptionKey: string,
): Promise<readonly { readonly hash: string; readonly key: ListedKey }[] | null> {
  const rows = await database.query<KeyRow>(LIST, [account, MOST]);
  if (rows.length === 0) return null;
  return rows.flatMap(({ hash, encrypted, hasKey, isDeleted, deleted, expires, isOver, ...times }) => {
    if (hash === null) return [];
    const claims = readClaims(openText(encrypted ?? "", encryptionKey) ?? "");
    const isRevoked = hasKey ? isDeleted : isOver;
    // A revocation ends the session: that is not when the key would have expired.
    const end = isRevoked ? null : expires;
    const until = claims?.expiresAt == null ? end : new Date(claims.expiresAt * 1_000).toISOString();
    const isPast = claims?.expiresAt != null && claims.expiresAt * 1_000 <= Date.parse(times.now);
    const key: ListedKey = {
      id: hash.slice(0, ID_CHARACTERS),
      name: claims?.name ?? null,
      kind: !hasKey ? "session" : claims?.uploadOnly === true ? "upload" : "full",
      created: times.created,
      expires: until,
      lastUsed: times.lastUsed,
      state: isRevoked ? "revoked" : isPast ? "expired" : "active",
      revoked: isRevoked ? (deleted ?? expires) : null,
    };
    return [{ hash, key }];
  });
}

interface KeyRow extends Record<string, unknown> {
  /** Null in the one row of an account without keys. */
  readonly hash: string | null;
  readonly encrypted: string | null;
  /** True if api_keys has it; the others are only in sessions. */
  readonly hasKey: boolean;
  readonly isDeleted: boolean;
  readonly deleted: string | null;
  readonly created: string | null;
  readonly lastUsed: string | null;
  /** When the session ends. */
  readonly expires: string | null;
  readonly isOver: boolean;
  readonly now: string;
}

const utc = (value: string): string => `to_char(${value} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`;

/** Rows of upstream from before user ids have an address only. */
const LIST = `
  WITH keys AS (
    SELECT key_hash AS hash, encrypted_key, created_at, last_used_at, coalesce(is_deleted, 0) <> 0 AS deleted,
      deleted_at FROM api_keys
    WHERE key_hash IS NOT NULL AND (user_id = $1::text
      OR (user_id IS NULL AND encode(sha256(convert_to(lower(user_email), 'UTF8')), 'hex') = $1::text))
  ), opened AS (
    SELECT token_hash AS hash, created_at, expires_at FROM sessions s
    WHERE token_hash IS NOT NULL AND ${accountOfName(SESSION_NAME)} = $1::text
  ), found AS (
    SELECT hash, k.encrypted_key AS encrypted, k.deleted IS NOT NULL AS "hasKey", coalesce(k.deleted, false) AS "isDeleted",
      coalesce(k.created_at, o.created_at) AS at, k.last_used_at, k.deleted_at, o.expires_at
    FROM keys k FULL JOIN opened o USING (hash)
    ORDER BY coalesce(k.created_at, o.created_at) DESC NULLS LAST, hash LIMIT $2::integer
  )
  SELECT f.hash, f.encrypted, f."hasKey", f."isDeleted", ${utc("f.at")} AS created, ${utc("f.last_used_at")} AS "lastUsed",
    CASE WHEN isfinite(f.expires_at) THEN ${utc("f.expires_at")} END AS expires,
    ${utc("f.deleted_at")} AS deleted, coalesce(f.expires_at <= now(), false) AS "isOver", ${utc("now()")} AS now
  FROM (SELECT WHERE EXISTS (SELECT FROM webui_users WHERE user_id = $1::text) OR EXISTS (SELECT FROM found)) AS account
    LEFT JOIN found f ON true
  ORDER BY f.at DESC NULLS LAST, f.hash`;

/** The end of a key by the operator. */
export interface KeyRevocation {
  readonly account: string;
  readonly hash: string;
  readonly reason: string;
  readonly actor: string;
}

/**
 * Revokes one key for every service: in api_keys, where the storage API looks, and in sessions, where the pinning API
 * looks. Writes the audit log. False if it was revoked already; then nothing changes.
 */
export async function revokeByOperator(database: Database, revocation: KeyRevocation): Promise<boolean> {
  const { account, hash, reason, actor } = revocation;
  const rows = await database.query(REVOKE, [hash, account, reason, actor, hash.slice(0, ID_CHARACTERS)]);
  return rows.length > 0;
}

const REVOKE = `
  WITH revoked AS (
    UPDATE api_keys SET is_deleted = 1, deleted_at = now() WHERE key_hash = $1 AND coalesce(is_deleted, 0) = 0
    RETURNING key_hash AS hash
  ), ended AS (
    UPDATE sessions SET expires_at = now() WHERE token_hash = $1 AND (expires_at IS NULL OR expires_at > now())
    RETURNING token_hash AS hash
  ), changed AS (
    SELECT hash FROM revoked UNION SELECT hash FROM ended
  ), audited AS (
    INSERT INTO admin_audit_log (actor, action, target_id, details)
      SELECT $4, 'revoke-key', $2, jsonb_build_object('reason', $3::text, 'key', $5::text) FROM changed
  )
  SELECT hash FROM changed`;
