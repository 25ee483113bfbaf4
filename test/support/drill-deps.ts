import { createHash } from "node:crypto";
import { createMigrator } from "../../src/database/migrator.ts";
import { openPostgresPool, type PostgresPool } from "../../src/database/postgres.ts";
import { postgresWriter } from "../../src/database/postgres-writer.ts";
import type { CronDrillDeps } from "../../src/drills/scratch/cron-group.ts";
import type { InstalledMaster } from "../../src/join/installed-node.ts";
import { clock, random } from "../../src/machine/clock.ts";
import { masterLayout } from "../../src/settings/layout.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

/** Where the parts are that a drill needs. */
export interface DrillPlaces {
  /** The directory of the migrations. */
  readonly migrations: string;
  /** Its `bin/fula-node.js` is what a drill starts. */
  readonly packageDir: string;
}

/** What a drill needs, with real adapters. */
export function depsIn({ migrations, packageDir }: DrillPlaces): CronDrillDeps {
  return {
    host: {
      postgres: postgresWriter,
      migrations: createMigrator({ directory: migrations, toolVersion: "0.0.0-test" }),
      random,
      clock,
    },
    hostname: "a-master",
    hash: (text) => createHash("sha256").update(text).digest("hex"),
    openPool: openPostgresPool,
    nodePath: process.execPath,
    packageDir,
    environment: process.env,
  };
}

/** Called at each call of an adapter: with its number, before it, and when it was sent. */
export type OnCall = (n: number, when: "before" | "sent") => void;

/** The same, and each call of the database and of the clock is counted. */
export function counted(deps: CronDrillDeps, onCall: OnCall): CronDrillDeps {
  let calls = 0;
  const call = <Result>(work: () => Promise<Result>): Promise<Result> => {
    calls += 1;
    const n = calls;
    onCall(n, "before");
    const result = work();
    onCall(n, "sent");
    return result;
  };
  const queryOf =
    (query: PostgresPool["query"]): PostgresPool["query"] =>
    (...statement) =>
      call(() => query(...statement));
  const { postgres, migrations } = deps.host;
  return {
    ...deps,
    host: {
      ...deps.host,
      postgres: {
        session: (target, work) =>
          call(() => postgres.session(target, ({ query }) => work({ query: queryOf(query) }))),
      },
      migrations: { up: (...given) => call(() => migrations.up(...given)) },
      clock: { ...deps.host.clock, wait: (ms) => call(() => deps.host.clock.wait(ms)) },
    },
    openPool(...given) {
      const pool = deps.openPool(...given);
      return {
        ...pool,
        query: queryOf((...statement) => pool.query(...statement)),
        transaction: (work) => call(() => pool.transaction(({ query }) => work({ query: queryOf(query) }))),
        close: () => call(() => pool.close()),
      };
    },
  };
}

const MASTER_ID = "11111111-1111-4111-8111-111111111111";

/** A master whose database is there. */
export function masterOn(target: PostgresTarget, id = MASTER_ID): InstalledMaster {
  const values: Readonly<Record<string, string | undefined>> = {
    MASTER_ID: id,
    POSTGRES_HOST: target.host,
    POSTGRES_PORT: String(target.port),
    POSTGRES_DB: target.database,
    POSTGRES_USER: target.user,
    POSTGRES_PASSWORD: target.password,
    POSTGRES_SSL: target.ssl === false ? "disable" : target.ssl,
    POSTGRES_SSL_CA: target.sslCa,
  };
  return { layout: masterLayout("/opt/fula-master"), values: (key) => values[key] };
}
