import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { execa } from "execa";
import type { PostgresTarget } from "../../src/host/host.ts";
import { createMigrator } from "../../src/host/migrator.ts";
import { findPostgresPrograms } from "../support/postgres-programs.ts";
import { startPostgres } from "../support/postgres-server.ts";

/** Pairs of measurements of one run: ours and the anchor took turns, so that they saw the same machine. */
export interface MigrationBench {
  readonly name: string;
  readonly unit: "ms";
  readonly ours: number[];
  readonly anchor: number[];
}

const ROUNDS = 11;
const SHIPPED = fileURLToPath(new URL("../../migrations", import.meta.url));
const FILES = [
  "001_schema.sql",
  "018_deduction_idempotency.sql",
  "019_user_wallets_nullable_address.sql",
  "020_bucket_roots.sql",
];

/**
 * `up` on an empty database as `join-as-master` runs it, inside a process that is up already, against one psql with
 * `-f` for each of the same files. The server waits for the disk.
 */
export function benchMigrations(): Promise<MigrationBench> {
  const migrator = createMigrator({ directory: SHIPPED, toolVersion: "0.0.0-bench" });
  return compare("all migrations, empty database, in process", async () => async (target) => {
    await migrator.up(target, { report: () => {} });
  });
}

/** The same with a node process of its own, one bundled file as it is shipped, start and end counted. */
export function benchMigrationsProcess(): Promise<MigrationBench> {
  return compare("all migrations, empty database, as a process", async (directory) => {
    const program = join(directory, "migrate.mjs");
    await build({
      entryPoints: [fileURLToPath(new URL("../support/migrate-child.ts", import.meta.url))],
      outfile: program,
      bundle: true,
      minify: true,
      platform: "node",
      format: "esm",
      external: ["pg-native"],
      banner: {
        js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
      },
    });
    return async (target) => {
      const env = { MIGRATE_DIRECTORY: SHIPPED, MIGRATE_TARGET: JSON.stringify(target) };
      await execa(process.execPath, [program], { env });
    };
  });
}

type Run = (target: PostgresTarget) => Promise<void>;

async function compare(name: string, prepare: (directory: string) => Promise<Run>): Promise<MigrationBench> {
  const programs = await findPostgresPrograms();
  if (typeof programs === "string") throw new Error(programs);
  const directory = await mkdtemp(join(tmpdir(), "fula-node-bench-"));
  const postgres = await startPostgres(programs, { durable: true });
  const ours: number[] = [];
  const anchor: number[] = [];
  try {
    const up = await prepare(directory);
    for (let round = 0; round < ROUNDS; round += 1) {
      ours.push(await time(up, await postgres.createDatabase()));
      anchor.push(await time(psql, await postgres.createDatabase()));
    }
  } finally {
    await postgres.stop();
    await rm(directory, { recursive: true });
  }
  return { name, unit: "ms", ours, anchor };
}

async function time(run: Run, target: PostgresTarget): Promise<number> {
  const startedAt = performance.now();
  await run(target);
  return performance.now() - startedAt;
}

async function psql(target: PostgresTarget): Promise<void> {
  const where = ["-h", target.host, "-p", String(target.port), "-U", target.user, "-d", target.database];
  const files = FILES.flatMap((file) => ["-f", join(SHIPPED, file)]);
  await execa("psql", ["-X", "-q", "-v", "ON_ERROR_STOP=1", ...where, ...files], {
    env: { PGPASSWORD: target.password },
  });
}
