import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { RunEvent } from "../../src/engine/events.ts";
import { openPostgresPool } from "../../src/database/postgres.ts";
import { clock, random } from "../../src/machine/clock.ts";
import { files } from "../../src/machine/file-writer.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import type { Result } from "../../src/ui/reporter.ts";
import { table, wrap } from "../../src/ui/text.ts";
import type { World } from "../../src/world.ts";

export const JWT_SECRET = "jwt-secret-of-the-test";
const ENCRYPTION_KEY = "ab".repeat(32);

/** A master whose `.env` leads to that database, and what its verbs would print. */
export async function masterOn(
  target: PostgresTarget,
  secrets: Readonly<Record<string, string>> = { JWT_SECRET, ENCRYPTION_KEY },
) {
  const baseDir = await mkdtemp(join(tmpdir(), "fula-node-verbs-"));
  onTestFinished(() => rm(baseDir, { recursive: true }));
  const values = {
    CLUSTERNAME: "pool-a",
    CLUSTER_PEERNAME: "m1",
    POSTGRES_HOST: target.host,
    POSTGRES_PORT: target.port,
    POSTGRES_DB: target.database,
    POSTGRES_USER: target.user,
    POSTGRES_PASSWORD: target.password,
    ...secrets,
  };
  const lines = Object.entries(values).map(([key, value]) => `${key}=${value}\n`);
  await writeFile(join(baseDir, ".env"), lines.join(""), { mode: 0o600 });
  const results: Result[] = [];
  const warnings: string[] = [];
  const world = {
    host: { files, random, clock, system: { uid: () => 0 } },
    environment: {},
    hostname: "m1",
    openPool: openPostgresPool,
    reporter: {
      result: (result: Result) => void results.push(result),
      listen: (event: RunEvent) => event.type === "warning" && void warnings.push(event.text),
      table,
      wrap,
    },
  } as unknown as World;
  return { baseDir, world, results, warnings };
}
