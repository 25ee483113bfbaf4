import { messageOf, OperatorError } from "../errors.ts";
import { codeOfServer } from "./connection-fault.ts";
import type { PostgresPool } from "./postgres.ts";

/**
 * CREATE DATABASE takes it along in its one statement, so no kill comes between a database and its mark. It is no limit: no
 * server has so many sessions.
 */
export const SCRATCH_MARK = 471_300;
/** PostgreSQL leaves it on a database whose DROP was interrupted. Nobody can connect to that any more. */
const HALF_DROPPED = -2;

/** `fula_drill_`, then 8 hex digits each: which master made it, when (seconds since 1970), and a random number. */
const NAME = "^fula_drill_[0-9a-f]{24}$";

/** No drill takes that long. So any master drops what another one, which may be lost, has left for longer. */
const OLD_SECONDS = 3_600;

/** The part of a name that tells this master's databases from those of others in the same Postgres. */
export function scratchMaker(hash: (text: string) => string, id: string): string {
  return hash(`fula-node drill\n${id}`).slice(0, 8);
}

/** The scratch databases that a killed drill of this master left, and old ones of other masters. One without the mark, of another role, or with a name that is only similar is none. */
export async function listScratches(query: PostgresPool["query"], maker: string): Promise<readonly string[]> {
  const found = await query<{ name: string }>(LEFT, [NAME, [SCRATCH_MARK, HALF_DROPPED], maker, OLD_SECONDS]);
  return found.map(({ name }) => name);
}

/** Drops one of them, whatever still uses it. Throws an OperatorError if PostgreSQL keeps it. */
export async function dropScratch(query: PostgresPool["query"], name: string): Promise<void> {
  await query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`).catch((thrown: unknown) => {
    throw codeOfServer(thrown) === "" ? thrown : isKept(name, thrown);
  });
}

function isKept(name: string, cause: unknown): OperatorError {
  return new OperatorError({
    exit: "unhealthy",
    what: `PostgreSQL keeps the scratch database ${name} of a drill: ${messageOf(cause)}.`,
    remedy: `End the sessions that use it, then run this again; or, as administrator of the database: DROP DATABASE ${name};`,
    cause,
  });
}

/**
 * Those of the role that asks. CASE, since PostgreSQL may look at the digits of every name first. Such a name needs no quotes: it
 * has only letters, digits and underscores.
 */
const LEFT = `
  SELECT datname AS name FROM pg_database
  WHERE datconnlimit = ANY ($2::integer[]) AND NOT datistemplate
    AND datdba = (SELECT oid FROM pg_roles WHERE rolname = current_user)
    AND CASE WHEN datname ~ $1 THEN substr(datname, 12, 8) = $3
      OR ('x' || substr(datname, 20, 8))::bit(32)::bigint < extract(epoch FROM clock_timestamp()) - $4::integer
      ELSE false END
  ORDER BY datname`;
