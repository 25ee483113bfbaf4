import type { PostgresPool } from "../database/postgres.ts";
import { OperatorError } from "../errors.ts";
import type { Host } from "../host.ts";
import { countOf } from "../units.ts";
import { isSignedWith, openText, sealText } from "./api-key.ts";

type Database = Pick<PostgresPool, "query">;

/** A column with texts that sealText encrypted. */
interface SealedColumn {
  readonly table: string;
  readonly id: string;
  readonly column: string;
  /**
   * False for tables of upstream's web service that are not in our migrations. Their values may be encrypted by clients
   * with keys of their own: what ENCRYPTION_KEY does not open there stays as it is.
   */
  readonly isOurs: boolean;
}

/**
 * Every column that ENCRYPTION_KEY protects. The hashes of the schema (user_id, wallet_address_hash, key_hash) are plain
 * sha256, so they do not depend on it.
 */
const COLUMNS: readonly SealedColumn[] = [
  { table: "webui_users", id: "id", column: "encrypted_email", isOurs: true },
  { table: "api_keys", id: "id", column: "encrypted_key", isOurs: true },
  { table: "user_wallets", id: "id", column: "encrypted_wallet_address", isOurs: true },
  { table: "share_manifests", id: "share_id", column: "encrypted_manifest", isOurs: false },
  { table: "collab_manifests", id: "group_id", column: "encrypted_manifest", isOurs: false },
];

/** Two values of ENCRYPTION_KEY, as 64 hex digits. `next` is null while there is no new one yet. */
export interface KeyPair {
  readonly previous: string;
  readonly next: string | null;
}

/** How many encrypted values each key opens. */
export interface SealedSurvey {
  readonly previous: number;
  readonly next: number;
}

const BATCH_ROWS = 500;
const MAX_NAMED = 20;

/**
 * Counts what each key opens: the encryption is authenticated, so there is no doubt. Throws an OperatorError (`integrity`)
 * that lists the rows which neither key opens. Changes nothing, and needs constant memory.
 */
export async function surveySealed(database: Database, keys: KeyPair): Promise<SealedSurvey> {
  const counts = { previous: 0, next: 0 };
  const unreadable: string[] = [];
  let unreadableCount = 0;
  await eachBatch(database, async ({ table, column, isOurs }, rows) => {
    for (const { id, sealed } of rows) {
      const opened = open(sealed, keys);
      if (opened !== null) counts[opened.by] += 1;
      else if (isOurs) {
        unreadableCount += 1;
        if (unreadable.length < MAX_NAMED) unreadable.push(`${table} ${id}: ${column}`);
      }
    }
  });
  if (unreadableCount === 0) return counts;
  throw new OperatorError({
    exit: "integrity",
    what: `${countOf(unreadableCount, "encrypted value")} of the database can't be decrypted with ENCRYPTION_KEY.`,
    why: "They were encrypted with another key, or were altered. Nothing was re-encrypted.",
    remedy:
      "Find the key that they were encrypted with. If they are lost for good, set them to NULL in the database, then run again.",
    problems: unreadable.map((what) => ({ subject: "database", what })),
  });
}

/**
 * Encrypts again, with `next`, every value that `previous` opens. A batch is one statement, and it changes a value only if
 * it is still the one that was read, so an interrupted run is continued by running it again. Returns how many it changed.
 */
export async function reencryptSealed(
  database: Database,
  random: Host["random"],
  keys: { readonly previous: string; readonly next: string },
  report: (line: string) => void,
): Promise<number> {
  let changed = 0;
  await eachBatch(database, async ({ table, id: key, column }, rows) => {
    const changes = rows.flatMap(({ id, sealed }) => {
      const opened = open(sealed, keys);
      if (opened === null || opened.by === "next") return [];
      return [{ id, sealed, again: sealText(opened.text, keys.next, random.hex(12)) }];
    });
    if (changes.length === 0) return;
    const updated = await database.query(
      `UPDATE ${table} AS t SET ${column} = v.again
        FROM unnest($1::text[], $2::text[], $3::text[]) AS v(id, sealed, again)
        WHERE t.${key}::text = v.id AND t.${column} = v.sealed RETURNING 1 AS n`,
      [changes.map(({ id }) => id), changes.map(({ sealed }) => sealed), changes.map(({ again }) => again)],
    );
    changed += updated.length;
    report(`${countOf(changed, "value")} encrypted with the new key`);
  });
  return changed;
}

/**
 * Revokes every API key that is not signed with this JWT_SECRET: in api_keys, where the storage API looks, and in sessions,
 * where the pinning API looks. The rows stay. Returns how many it revoked.
 */
export async function revokeOtherKeys(
  database: Database,
  { jwtSecret, encryptionKey }: { readonly jwtSecret: string; readonly encryptionKey: string },
): Promise<number> {
  let revoked = 0;
  for (let after = 0; ;) {
    const rows = await database.query<{ id: number; sealed: string | null }>(ACTIVE_KEYS, [
      after,
      BATCH_ROWS,
    ]);
    const others = rows.filter(
      ({ sealed }) => !isSignedWith(openText(sealed ?? "", encryptionKey) ?? "", jwtSecret),
    );
    if (others.length > 0)
      revoked += (await database.query(REVOKE_KEYS, [others.map(({ id }) => id)])).length;
    const last = rows.at(-1);
    if (last === undefined || rows.length < BATCH_ROWS) return revoked;
    after = last.id;
  }
}

const ACTIVE_KEYS = `
  SELECT id, encrypted_key AS sealed FROM api_keys WHERE is_deleted = 0 AND id > $1 ORDER BY id LIMIT $2`;

const REVOKE_KEYS = `
  WITH revoked AS (
    UPDATE api_keys SET is_deleted = 1, deleted_at = now() WHERE id = ANY($1::int[]) AND is_deleted = 0
    RETURNING key_hash
  ), expired AS (
    UPDATE sessions SET expires_at = now()
      WHERE token_hash IN (SELECT key_hash FROM revoked) AND (expires_at IS NULL OR expires_at > now())
  )
  SELECT 1 AS n FROM revoked`;

interface SealedRow extends Record<string, unknown> {
  readonly id: string;
  readonly sealed: string;
}

/** Passes on every encrypted value, in batches. A table that does not exist has none. */
async function eachBatch(
  database: Database,
  visit: (column: SealedColumn, rows: readonly SealedRow[]) => Promise<void>,
): Promise<void> {
  for (const one of COLUMNS) {
    const { table, id, column, isOurs } = one;
    const found = await database.query(HAS_COLUMN, [table, column]);
    if (found.length === 0) continue;
    // The rows of our tables have a number; upstream's other tables have a text.
    const order = isOurs ? `t.${id}` : `t.${id}::text COLLATE "C"`;
    const values = `FROM ${table} AS t WHERE t.${column} <> ''`;
    const sql = `SELECT t.${id}::text AS id, t.${column} AS sealed ${values}
      AND ${order} > $1${isOurs ? "::int" : "::text"} ORDER BY ${order} LIMIT ${BATCH_ROWS}`;
    const [counted] = await database.query<{ n: string }>(`SELECT count(*) AS n ${values}`);
    let visited = 0;
    for (let after = isOurs ? "-1" : ""; ;) {
      const rows: readonly SealedRow[] = await database.query<SealedRow>(sql, [after]);
      if (rows.length > 0) await visit(one, rows);
      visited += rows.length;
      const last = rows.at(-1);
      if (last === undefined || rows.length < BATCH_ROWS) break;
      after = last.id;
    }
    if (visited < Number(counted?.n)) throw missed(table, visited);
  }
}

/** A row that was not looked at would stay encrypted with a key that is then thrown away. */
function missed(table: string, visited: number): OperatorError {
  return new OperatorError({
    exit: "interrupted",
    what: `Only ${visited} rows of ${table} were found: others were removed meanwhile.`,
    remedy: "Run again.",
  });
}

const HAS_COLUMN = `
  SELECT 1 AS n FROM information_schema.columns
  WHERE table_schema = current_schema() AND table_name = $1 AND column_name = $2`;

/** The text of an encrypted value, and the key that opens it; null if neither does. */
function open(
  sealed: string,
  { previous, next }: KeyPair,
): { readonly text: string; readonly by: "previous" | "next" } | null {
  const renewed = next === null ? null : openText(sealed, next);
  if (renewed !== null) return { text: renewed, by: "next" };
  const text = openText(sealed, previous);
  return text === null ? null : { text, by: "previous" };
}
