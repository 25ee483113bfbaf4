import { execa } from "execa";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { leaseDrill } from "../../src/drills/lease-drill.ts";
import { depsIn } from "../support/drill-deps.ts";
import { drillDatabases, processesOf, runDrill } from "../support/drills.ts";
import { SHIPPED, until } from "../support/migrations.ts";
import { migrate } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
let packageDir: string;

beforeAll(async () => {
  packageDir = await mkdtemp(join(tmpdir(), "fula-node-drill-"));
  await execa("node", ["scripts/build.mjs", join(packageDir, "dist")], { cwd: root });
  for (const entry of ["package.json", "bin"])
    await cp(join(root, entry), join(packageDir, entry), { recursive: true });
});

afterAll(() => rm(packageDir, { recursive: true, force: true }));

describeOnPostgres(
  "the program as a drill starts it",
  (postgres) => {
    test("D3 passes with it; no password is in its arguments or its environment", async () => {
      const target = await postgres.createDatabase();
      const drilled = runDrill(leaseDrill, depsIn({ migrations: SHIPPED, packageDir }), target);
      let crons: readonly number[] = [];
      await until("both crons run", async () => {
        crons = await processesOf(packageDir);
        return crons.length === 2;
      });
      for (const pid of crons)
        for (const file of ["cmdline", "environ"])
          expect(await readFile(`/proc/${pid}/${file}`, "utf8")).not.toContain(target.password);
      expect(await drilled).toMatchObject({ state: "passed" });
      expect(await drillDatabases(target)).toEqual([]);
      expect(await processesOf(packageDir)).toEqual([]);
    });

    test("without a drill, it ends by itself", async () => {
      const program = [join(packageDir, "bin/fula-node.js"), "serve", "drill-crons"];
      const { exitCode, stdout } = await execa(process.execPath, program, { stdin: "ignore" });
      expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: "" });
      const { stdout: help } = await execa(process.execPath, [program[0] ?? "", "serve", "--help"]);
      expect(help).not.toContain("drill");
    });
  },
  { template: migrate },
);
