import { createInterface } from "node:readline";
import { openPostgresPool } from "../../src/database/postgres.ts";
import { runCronChild } from "../../src/drills/scratch/cron-child.ts";
import type { CronSettings } from "../../src/drills/scratch/cron-process.ts";

/** What `fula-node serve drill-crons` does, as a small program. A test may put other billing settings before it. */
const { drillTwin = {} } = globalThis as { readonly drillTwin?: Partial<CronSettings["billing"]> };

async function* altered(): AsyncGenerator<string> {
  let isFirst = true;
  for await (const line of createInterface({ input: process.stdin })) {
    const settings = isFirst ? (JSON.parse(line) as CronSettings) : null;
    isFirst = false;
    yield settings === null
      ? line
      : JSON.stringify({ ...settings, billing: { ...settings.billing, ...drillTwin } });
  }
}

// As the program does it: a closed output ends nothing.
process.stdout.on("error", () => {});
await runCronChild({
  stdinLines: altered,
  write: (lines) => void process.stdout.write(lines),
  openPool: openPostgresPool,
  die: () => void process.kill(process.pid, "SIGKILL"),
});
