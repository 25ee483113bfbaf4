import { codeOfServer } from "../../database/connection-fault.ts";
import type { openPostgresPool, PostgresPool } from "../../database/postgres.ts";
import { dropScratch, listScratches, SCRATCH_MARK, scratchMaker } from "../../database/scratch-mark.ts";
import { messageOf } from "../../errors.ts";
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
  report("made a scratch database with all migrations");
  const settings = { ...target, maxConnections: CONNECTIONS, idleTimeoutMs: 30_000, connectTimeoutMs: 5_000 };
  const pool = deps.openPool(settings, { applicationName: "fula-node drill", log: () => {} });
  try {
    return await work({ target, pool });
  } finally {
    await pool.close();
  }
}

/** See `scratchMaker`. */
function makerOf(
  { hash, hostname }: Pick<ScratchDeps, "hash" | "hostname">,
  { values }: InstalledMaster,
): string {
  return scratchMaker(hash, values("MASTER_ID") ?? hostname);
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
      await query(`CREATE DATABASE ${name} TEMPLATE template0 CONNECTION LIMIT ${SCRATCH_MARK}`);
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
    const found = await listScratches(query, makerOf(deps, master));
    for (const name of found) await dropScratch(query, name);
    return found.map((name) => `the scratch database ${name}`);
  });
}
