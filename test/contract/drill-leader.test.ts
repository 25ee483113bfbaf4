import { expect, test } from "vitest";
import { leaseDrill } from "../../src/drills/lease-drill.ts";
import { takeoverDrill } from "../../src/drills/takeover-drill.ts";
import { drillDatabases, drillDeps, processesOf, runDrill } from "../support/drills.ts";
import { migrate } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";

describeOnPostgres(
  "D3 and D4",
  (postgres) => {
    test("D3 passes, and leaves nothing", async () => {
      const target = await postgres.createDatabase();
      const deps = await drillDeps();
      const outcome = await runDrill(leaseDrill, deps, target);
      expect(outcome).toMatchObject({ state: "passed", todo: null });
      expect(outcome.summary).toMatch(
        /^one of two crons led; 40 accounts, [67] hours: 2[48]0 charges, each once/,
      );
      expect(await drillDatabases(target)).toEqual([]);
      expect(await processesOf(deps.packageDir)).toEqual([]);
    });

    test("D4 passes, and leaves nothing", async () => {
      const target = await postgres.createDatabase();
      const deps = await drillDeps();
      const outcome = await runDrill(takeoverDrill, deps, target);
      expect(outcome).toMatchObject({ state: "passed", todo: null });
      expect(outcome.summary).toMatch(/completed; 180 charges|completed; 240 charges/);
      expect(await drillDatabases(target)).toEqual([]);
      expect(await processesOf(deps.packageDir)).toEqual([]);
    });
  },
  { template: migrate },
);
