import { execa } from "execa";
import { describe, expect, test } from "vitest";
import { bucketDrill } from "../../src/drills/bucket-drill.ts";
import type { Drill } from "../../src/drills/drill.ts";
import { leaseDrill } from "../../src/drills/lease-drill.ts";
import { nameDrill } from "../../src/drills/name-drill.ts";
import { replayDrill } from "../../src/drills/replay-drill.ts";
import type { CronDrillDeps } from "../../src/drills/scratch/cron-group.ts";
import { takeoverDrill } from "../../src/drills/takeover-drill.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { bundleChild } from "../support/bundle-child.ts";
import { counted, masterOn } from "../support/drill-deps.ts";
import { drillDatabases, drillDeps, packageWith, processesOf, runDrill } from "../support/drills.ts";
import { SHIPPED, until } from "../support/migrations.ts";
import { migrate } from "../support/names-database.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const program = await bundleChild(new URL("../support/drill-run-child.ts", import.meta.url));
const DRILLS: readonly Drill<CronDrillDeps>[] = [
  leaseDrill,
  takeoverDrill,
  replayDrill,
  bucketDrill,
  nameDrill,
];

/**
 * Every call up to the first ones of the drill's own work, and some later ones. All drills begin alike. D3, the shortest, has 38 to 59
 * calls: it waits for its crons in turns.
 */
const POINTS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 25, 30];
const pointsOf = ({ id }: { readonly id: string }) => (id === "D3" ? POINTS : [6, 9, 15, 30]);

/** A drill in a process of its own, which kills itself. */
async function killedAt(target: PostgresTarget, id: string, packageDir: string, killAt: object) {
  const places = { migrations: SHIPPED, packageDir };
  return execa(process.execPath, ["--input-type=module"], {
    input: program,
    env: { DRILL: JSON.stringify({ target, places, id, killAt }) },
    reject: false,
  });
}

/** A backend may finish what a killed client has sent. */
async function untilAlone(target: PostgresTarget): Promise<void> {
  await until("no statement of the killed drill runs", async () => {
    const rows = await sql(
      target,
      `SELECT FROM pg_stat_activity WHERE application_name LIKE 'fula-node%' AND (state = 'active' OR query LIKE 'CREATE DATABASE%')`,
    );
    return rows.length === 0;
  });
}

describe("a drill that is interrupted leaves nothing behind", () => {
  describeOnPostgres(
    "on a real PostgreSQL",
    (postgres) => {
      for (const drill of DRILLS) {
        test(
          `${drill.id}: killed at its calls, the next one removes all of it`,
          { timeout: 240_000 },
          async () => {
            const target = await postgres.createDatabase();
            const packageDir = await packageWith();
            const deps = await drillDeps();
            let killed = 0;
            let removed = 0;
            for (const [index, n] of pointsOf(drill).entries()) {
              const when = index % 2 === 0 ? "sent" : "before";
              const { signal, stderr } = await killedAt(target, drill.id, packageDir, { n, when });
              expect(stderr).toBe("");
              if (signal === "SIGKILL") killed += 1;
              await until("its processes are gone", async () => (await processesOf(packageDir)).length === 0);
              await untilAlone(target);
              const lines = await drill.cleanUp(deps, { master: masterOn(target), report: () => {} });
              removed += lines.length;
              expect(await drillDatabases(target), `after call ${n}`).toEqual([]);
            }
            expect(killed).toBe(pointsOf(drill).length);
            expect(removed).toBeGreaterThan(pointsOf(drill).length / 2);
          },
        );

        test(
          `${drill.id}: stopped at its calls, it says so and cleans up`,
          { timeout: 240_000 },
          async () => {
            const target = await postgres.createDatabase();
            const sound = await drillDeps();
            for (const point of pointsOf(drill)) {
              const stopper = new AbortController();
              const deps = counted(sound, (n, when) => {
                if (n === point && when === "before") stopper.abort(new Error("stopped by the test"));
              });
              await expect(runDrill(drill, deps, target, { stop: stopper.signal })).rejects.toThrow(
                "stopped by the test",
              );
              expect(await drillDatabases(target), `after call ${point}`).toEqual([]);
              expect(await processesOf(sound.packageDir)).toEqual([]);
            }
          },
        );
      }
    },
    { template: migrate },
  );
});
