import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { CronDrillDeps } from "../../src/drills/scratch/cron-group.ts";
import type { Drill, DrillContext, DrillOutcome } from "../../src/drills/drill.ts";
import type { BillingSettings } from "../../src/settings/billing.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { bundleChild } from "./bundle-child.ts";
import { depsIn, masterOn } from "./drill-deps.ts";
import { SHIPPED } from "./migrations.ts";
import { sql } from "./postgres-server.ts";

/** How a drill's world differs from a sound one. */
export interface Twin {
  /** Billing settings that its crons use in place of those of the drill. */
  readonly billing?: Partial<BillingSettings>;
  /** Run in the scratch database after the migrations. */
  readonly sql?: string;
}

const program = await bundleChild(new URL("./drill-cron-child.ts", import.meta.url));

/** A directory with what a drill starts as `bin/fula-node.js`. It is removed after the test. */
export async function packageWith(billing: Partial<BillingSettings> = {}): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "fula-node-drill-"));
  onTestFinished(() => rm(directory, { recursive: true }));
  await mkdir(join(directory, "bin"));
  await writeFile(join(directory, "package.json"), '{"type":"module"}');
  const text = `globalThis.drillTwin = ${JSON.stringify(billing)};\n${program}`;
  await writeFile(join(directory, "bin/fula-node.js"), text);
  return directory;
}

/** What a drill needs, with real adapters. */
export async function drillDeps({ billing, sql: breaking }: Twin = {}): Promise<CronDrillDeps> {
  const deps = depsIn({ migrations: SHIPPED, packageDir: await packageWith(billing) });
  if (breaking === undefined) return deps;
  const migrations: CronDrillDeps["host"]["migrations"] = {
    async up(target, options) {
      const done = await deps.host.migrations.up(target, options);
      await sql(target, breaking);
      return done;
    },
  };
  return { ...deps, host: { ...deps.host, migrations } };
}

/** Runs a drill as `fula-node drill` does: cleaned up before and after. */
export async function runDrill<Deps>(
  drill: Drill<Deps>,
  deps: Deps,
  target: PostgresTarget,
  {
    stop = new AbortController().signal,
    master = masterOn(target),
  }: Partial<Pick<DrillContext, "stop" | "master">> = {},
): Promise<DrillOutcome & { readonly lines: readonly string[] }> {
  const lines: string[] = [];
  const context: DrillContext = { master, stop, report: (line) => void lines.push(line) };
  lines.push(...(await drill.cleanUp(deps, context)));
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
