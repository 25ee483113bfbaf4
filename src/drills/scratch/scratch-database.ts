import { codeOfServer } from "../../database/connection-fault.ts";
import type { openPostgresPool, PostgresPool } from "../../database/postgres.ts";
import { messageOf, OperatorError } from "../../errors.ts";
import type { Host } from "../../host.ts";
import { databaseOf, type InstalledMaster } from "../../join/installed-node.ts";
import type { PostgresTarget } from "../../settings/postgres-target.ts";
import type { DrillContext } from "../drill.ts";
import { DrillFinding } from "../drill-finding.ts";

/** What a scratch database needs from the composition root. */
export interface ScratchDeps {
  readonly host: {
    readonly postgres: Pick<Host["postgres"], "session">;
    readonly migrations: Pick<Host["migrations"], "up">;
    readonly random: Pick<Host["random"], "hex">;
  };
  readonly hostname: string;
  readonly hash: (text: string) => string;
  readonly openPool: typeof openPostgresPool;
}

/**
 * A database of its own in the master's Postgres, with all tables of ours and no rows. Not a schema: advisory locks are
 * counted in each database, so the crons of a drill never meet those of the masters.
 */
export interface Scratch {
  readonly target: PostgresTarget;
  readonly pool: PostgresPool;
}

/**
 * CREATE DATABASE takes it along in its one statement, so no kill comes between a database and its mark. It is no limit: no
 * server has so many sessions.
 */
const MARK = 471_300;
/** PostgreSQL leaves it on a database whose DROP was interrupted. Nobody can connect to that any more. */
const HALF_DROPPED = -2;

/** `fula_drill_`, then 8 hex digits each: which master made it, when (seconds since 1970), and a random number. */
const NAME = "^fula_drill_[0-9a-f]{24}$";

/** No drill takes that long. So any master drops what another one, which may be lost, has left for longer. */
const OLD_SECONDS = 3_600;

/** How many connections a drill opens, beside those of the processes that it starts. */
const CONNECTIONS = 8;

/**
 * Makes a scratch database with all migrations, and runs `work` with it. Its connections are closed at the end, and
 * `dropScratches` removes it. Throws a DrillFinding (`skipped`) if the role may create none.
 */
export async function withScratch<Result>(
  deps: ScratchDeps,
  { master, stop, report }: Pick<DrillContext, "master" | "stop" | "report">,
  work: (scratch: Scratch) => Promise<Result>,
): Promise<Result> {
  const home = databaseOf(master);
  const database = await createDatabase(deps, master, home);
  const target = { ...home, database };
  stop.throwIfAborted();
  await deps.host.migrations.up(target, { report: () => {} });
  stop.throwIfAborted();
  report(`scratch database ${database}: all migrations applied`);
  const settings = { ...target, maxConnections: CONNECTIONS, idleTimeoutMs: 30_000, connectTimeoutMs: 5_000 };
  const pool = deps.openPool(settings, { applicationName: "fula-node drill", log: () => {} });
  try {
    return await work({ target, pool });
  } finally {
    await pool.close();
  }
}

/** The part of a name that tells this master's databases from those of others in the same Postgres. */
function makerOf(
  { hash, hostname }: Pick<ScratchDeps, "hash" | "hostname">,
  { values }: InstalledMaster,
): string {
  return hash(`fula-node drill\n${values("MASTER_ID") ?? hostname}`).slice(0, 8);
}

async function createDatabase(
  deps: ScratchDeps,
  master: InstalledMaster,
  home: PostgresTarget,
): Promise<string> {
  return deps.host.postgres.session(home, async ({ query }) => {
    const [clock] = await query<{ seconds: string }>(
      "SELECT extract(epoch FROM clock_timestamp())::bigint::text AS seconds",
    );
    const seconds = Number(clock?.seconds).toString(16).padStart(8, "0");
    const name = `fula_drill_${makerOf(deps, master)}${seconds}${deps.host.random.hex(4)}`;
    try {
      // template1 may have things of the operator, and can't be copied while somebody is connected to it.
      await query(`CREATE DATABASE ${name} TEMPLATE template0 CONNECTION LIMIT ${MARK}`);
    } catch (thrown) {
      throw codeOfServer(thrown) === "42501" ? mayNotCreate(home, thrown) : thrown;
    }
    // For people. What a killed run left is found by its name and its limit.
    await query(`COMMENT ON DATABASE ${name} IS 'made by fula-node drill; the next drill drops it'`);
    return name;
  });
}

function mayNotCreate({ user }: PostgresTarget, cause: unknown): DrillFinding {
  return new DrillFinding(
    `the role ${user} may not create the scratch database in which this drill works: ${messageOf(cause)}`,
    {
      state: "skipped",
      todo: `to have this drill, as administrator of the database: ALTER ROLE ${user} CREATEDB;`,
      cause,
    },
  );
}

/**
 * Drops the scratch databases of this master, whatever still uses them, and old ones of other masters. A database without the
 * mark, of another role, or with a name that is only similar stays. Returns a line for each one.
 */
export async function dropScratches(
  deps: Pick<ScratchDeps, "host" | "hostname" | "hash">,
  { master }: Pick<DrillContext, "master">,
): Promise<readonly string[]> {
  return deps.host.postgres.session(databaseOf(master), async ({ query }) => {
    const found = await query<{ name: string }>(LEFT, [
      NAME,
      [MARK, HALF_DROPPED],
      makerOf(deps, master),
      OLD_SECONDS,
    ]);
    for (const { name } of found)
      await query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`).catch((thrown: unknown) => {
        throw codeOfServer(thrown) === "" ? thrown : isKept(name, thrown);
      });
    return found.map(({ name }) => `the scratch database ${name}`);
  });
}

function isKept(name: string, cause: unknown): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `PostgreSQL keeps the scratch database ${name} of a drill: ${messageOf(cause)}.`,
    remedy: `End the sessions that use it, then run the drill again; or, as administrator of the database: DROP DATABASE ${name};`,
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
