import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { openPostgresPool } from "../../src/database/postgres.ts";
import { postgresWriter } from "../../src/database/postgres-writer.ts";
import type { CronDrillDeps } from "../../src/drills/cron-group.ts";
import type { Drill, DrillContext, DrillOutcome } from "../../src/drills/drill.ts";
import type { InstalledMaster } from "../../src/join/installed-node.ts";
import { clock, random } from "../../src/machine/clock.ts";
import type { BillingSettings } from "../../src/settings/billing.ts";
import { masterLayout } from "../../src/settings/layout.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { bundleChild } from "./bundle-child.ts";
import { migratorOf } from "./migrations.ts";
import { sql } from "./postgres-server.ts";

/** How a drill's world differs from a sound one. */
export interface Twin {
  /** Billing settings that its crons use in place of those of the drill. */
  readonly billing?: Partial<BillingSettings>;
  /** Run in the scratch database after the migrations. */
  readonly sql?: string;
}

const program = await bundleChild(new URL("./drill-child.ts", import.meta.url));

/** A directory with what a drill starts as `bin/fula-node.js`. */
export async function packageWith(billing: Partial<BillingSettings> = {}): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "fula-node-drill-"));
  await mkdir(join(directory, "bin"));
  await writeFile(join(directory, "package.json"), '{"type":"module"}');
  const text = `globalThis.drillTwin = ${JSON.stringify(billing)};\n${program}`;
  await writeFile(join(directory, "bin/fula-node.js"), text);
  return directory;
}

/** What a drill needs, with real adapters. */
export async function drillDeps({ billing, sql: breaking }: Twin = {}): Promise<CronDrillDeps> {
  const packageDir = await packageWith(billing);
  onTestFinished(() => rm(packageDir, { recursive: true }));
  return depsIn(packageDir, breaking);
}

/** The same, for a process that has a package already. */
export function depsIn(packageDir: string, breaking?: string): CronDrillDeps {
  const migrator = migratorOf();
  return {
    host: {
      postgres: postgresWriter,
      migrations: {
        async up(target, options) {
          const done = await migrator.up(target, options);
          if (breaking !== undefined) await sql(target, breaking);
          return done;
        },
      },
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

/** A master whose database is there. */
export function masterOn(
  target: PostgresTarget,
  id = "11111111-1111-4111-8111-111111111111",
): InstalledMaster {
  const values: Readonly<Record<string, string>> = {
    MASTER_ID: id,
    POSTGRES_HOST: target.host,
    POSTGRES_PORT: String(target.port),
    POSTGRES_DB: target.database,
    POSTGRES_USER: target.user,
    POSTGRES_PASSWORD: target.password,
    POSTGRES_SSL: target.ssl === false ? "disable" : target.ssl,
  };
  return { layout: masterLayout("/opt/fula-master"), values: (key) => values[key] };
}

/** Runs a drill as `fula-node drill` does: cleaned up before and after. */
export async function runDrill<Deps>(
  drill: Drill<Deps>,
  deps: Deps,
  target: PostgresTarget,
  stop: AbortSignal = new AbortController().signal,
): Promise<DrillOutcome & { readonly lines: readonly string[] }> {
  const lines: string[] = [];
  const context: DrillContext = {
    master: masterOn(target),
    stop,
    report: (line) => void lines.push(line),
  };
  await drill.cleanUp(deps, context);
  try {
    return { ...(await drill.run(deps, context)), lines };
  } finally {
    await drill.cleanUp(deps, context);
  }
}

/** The databases of the server whose names look like those of drills. */
export async function drillDatabases(target: PostgresTarget): Promise<readonly string[]> {
  const rows = await sql<{ name: string }>(
    target,
    "SELECT datname AS name FROM pg_database WHERE datname LIKE 'fula\\_drill%' ORDER BY 1",
  );
  return rows.map(({ name }) => name);
}

/** The processes whose command line has this text. */
export async function processesOf(text: string): Promise<readonly number[]> {
  const found: number[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    // It may have ended since.
    const line = await readFile(`/proc/${name}/cmdline`, "utf8").catch(() => "");
    if (line.includes(text)) found.push(Number(name));
  }
  return found;
}
