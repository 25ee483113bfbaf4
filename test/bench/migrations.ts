import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { createLedger } from "../../src/database/ledger.ts";
import { createMigrator } from "../../src/database/migrator.ts";
import { withSession } from "../../src/database/session.ts";
import { findPostgresPrograms } from "../support/postgres-programs.ts";
import { startPostgres, type TestPostgres } from "../support/postgres-server.ts";
import { type Contender, timePairs } from "./pairs.ts";
import type { Bench, Measurement } from "./report.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

const ROUNDS = 15;
const PROGRAM = fileURLToPath(new URL("../../bin/fula-node.js", import.meta.url));
const SHIPPED = fileURLToPath(new URL("../../migrations", import.meta.url));

type Run = (target: PostgresTarget) => Promise<void>;

/**
 * `up` on an empty database against one psql with `-f` for each of the same files. Measured twice: inside a running
 * process, as in `join-as-master`, and as a verb of the built artifact. The server waits for the disk.
 */
export const benches: readonly Bench[] = [
  {
    name: "migrations",
    run: async () => {
      const programs = await findPostgresPrograms();
      if (typeof programs === "string") throw new Error(programs);
      const directory = await mkdtemp(join(tmpdir(), "fula-node-bench-"));
      const postgres = await startPostgres(programs, { durable: true });
      try {
        const migrator = createMigrator({ directory: SHIPPED, toolVersion: "0.0.0-bench" });
        const inProcess: Run = async (target) => void (await migrator.up(target, { report: () => {} }));
        return [
          await compare("migrations in process", postgres, inProcess),
          await compare("fula-node migrate up", postgres, runProgram(directory)),
        ];
      } finally {
        await postgres.stop();
        await rm(directory, { recursive: true });
      }
    },
  },
];

async function compare(
  how: string,
  postgres: Pick<TestPostgres, "createDatabase">,
  ours: Run,
): Promise<Measurement> {
  const files = await listUpFiles();
  return {
    name: how,
    what: `all ${files.length} migrations on an empty database: ${how}`,
    against: "psql -f of the same files",
    unit: "ms",
    target: { of: "ratio", bound: "at most", value: 1.3 },
    ...(await timePairs(
      ROUNDS,
      onEmptyDatabase(postgres, ours),
      onEmptyDatabase(postgres, (target) => runPsql(target, files), withLedger),
    )),
  };
}

/** The files use tables that the program makes first. For psql, they are there before its time begins. */
const withLedger: Run = (target) =>
  withSession(
    target,
    { applicationName: "bench", readOnly: false, statementTimeoutMs: 0, lockTimeoutMs: 0 },
    createLedger,
  );

/** Each run gets its own database. The time to create it does not count. */
function onEmptyDatabase(
  postgres: Pick<TestPostgres, "createDatabase">,
  run: Run,
  before: Run = () => Promise.resolve(),
): Contender {
  let target: PostgresTarget | null = null;
  return {
    prepare: async () => {
      target = await postgres.createDatabase();
      await before(target);
    },
    run: async () => {
      if (target === null) throw new Error("no database was made");
      await run(target);
    },
  };
}

/** `fula-node migrate up` of the built artifact, including start and end of the process. */
function runProgram(directory: string): Run {
  return async ({ host, port, database, user, password }) => {
    const settings = [
      `POSTGRES_HOST=${host}`,
      `POSTGRES_PORT=${port}`,
      `POSTGRES_DB=${database}`,
      `POSTGRES_USER=${user}`,
      `POSTGRES_PASSWORD=${password}`,
    ];
    // An installed master has them there. To write them takes less than a thousandth of the run.
    await writeFile(join(directory, ".env"), `${settings.join("\n")}\n`, { mode: 0o600 });
    await execa(process.execPath, [PROGRAM, "migrate", "up", "--base-dir", directory]);
  };
}

async function listUpFiles(): Promise<readonly string[]> {
  const names = (await readdir(SHIPPED)).sort();
  return names.filter((name) => name.endsWith(".sql") && !name.endsWith(".down.sql"));
}

async function runPsql(target: PostgresTarget, names: readonly string[]): Promise<void> {
  const where = ["-h", target.host, "-p", String(target.port), "-U", target.user, "-d", target.database];
  const files = await Promise.all(
    names.map(async (name) => {
      const path = join(SHIPPED, name);
      const isWhole = (await readFile(path, "utf8")).includes("-- fula-node:transaction one");
      return isWhole ? ["-c", "BEGIN", "-f", path, "-c", "COMMIT"] : ["-f", path];
    }),
  );
  await execa("psql", ["-X", "-q", "-v", "ON_ERROR_STOP=1", ...where, ...files.flat()], {
    env: { PGPASSWORD: target.password },
  });
}
