import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { OperatorError } from "../../src/errors.ts";
import { leaseDrill } from "../../src/drills/lease-drill.ts";
import { nameDrill } from "../../src/drills/name-drill.ts";
import { dropScratches, withScratch } from "../../src/drills/scratch/scratch-database.ts";
import { createAuthority } from "../support/certificates.ts";
import { masterOn } from "../support/drill-deps.ts";
import { drillDatabases, drillDeps, runDrill } from "../support/drills.ts";
import { migrate } from "../support/names-database.ts";
import { freePort } from "../support/free-port.ts";
import { inSession, sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

let data = "";
const MARK = "CONNECTION LIMIT 471300";
const OTHER = "22222222-2222-4222-8222-222222222222";
const authority = await createAuthority();
afterAll(() => authority.close());
const issued = await authority.issue("DNS:localhost,IP:127.0.0.1");

/** Another master's mark in names, then a time in seconds. */
function nameAt(seconds: number, maker = "0badcafe"): string {
  return `fula_drill_${maker}${Math.floor(seconds).toString(16).padStart(8, "0")}00000001`;
}

describeOnPostgres(
  "the scratch database of a drill",
  (postgres) => {
    test("it has every migration, and is dropped though somebody uses it; rows of the real one stay as they are", async () => {
      const target = await postgres.createDatabase();
      const deps = await drillDeps();
      const context = { master: masterOn(target), stop: new AbortController().signal, report: () => {} };
      const applied = "SELECT version, state FROM fula_node.migrations ORDER BY version";
      const before = await sql(target, "SELECT relname, n_tup_ins FROM pg_stat_user_tables ORDER BY 1");
      const used = await withScratch(deps, context, async (scratch) => {
        expect(await sql(scratch.target, applied)).toEqual(await sql(target, applied));
        expect(await drillDatabases(target)).toEqual([scratch.target.database]);
        return scratch.target;
      });
      await inSession(used, async (client) => {
        await client.query("BEGIN");
        await client.query("SELECT count(*) FROM pins");
        expect(await dropScratches(deps, context)).toEqual([`the scratch database ${used.database}`]);
      });
      expect(await dropScratches(deps, context)).toEqual([]);
      expect(await sql(target, "SELECT relname, n_tup_ins FROM pg_stat_user_tables ORDER BY 1")).toEqual(
        before,
      );
    });

    test("only what a drill made is dropped: own ones, old ones of other masters, and half-dropped ones", async () => {
      const target = await postgres.createDatabase();
      const deps = await drillDeps();
      const master = masterOn(target);
      const now = Date.now() / 1_000;
      const own = deps.hash("fula-node drill\n11111111-1111-4111-8111-111111111111").slice(0, 8);
      const stay = [
        "fula_drill_x",
        "fula_drills",
        `${nameAt(now, own)}_mine`,
        nameAt(now, own),
        nameAt(now),
        nameAt(now - 7_200, "5ca1ab1e"),
      ];
      const go = [nameAt(now - 60, own), nameAt(now - 7_200), nameAt(now - 30, own)];
      await sql(target, "CREATE ROLE somebody");
      for (const [index, name] of [...stay, ...go].entries()) {
        // The fourth has the right name, and no mark; the sixth is another role's.
        await sql(target, `CREATE DATABASE ${name} ${index === 3 ? "" : MARK}`);
      }
      await sql(target, `ALTER DATABASE ${stay[5]} OWNER TO somebody`);
      await sql(target, `UPDATE pg_database SET datconnlimit = -2 WHERE datname = '${go[2]}'`);
      const lines = await dropScratches(deps, { master });
      expect(lines).toEqual(go.toSorted().map((name) => `the scratch database ${name}`));
      expect((await drillDatabases(target)).toSorted()).toEqual(stay.toSorted());
      for (const name of stay) await sql(target, `DROP DATABASE ${name}`);
    });

    test("a role that may create no database: the drill is skipped, and says what would allow it", async () => {
      const target = await postgres.createDatabase();
      await sql(target, "CREATE ROLE adopted LOGIN PASSWORD 'x'");
      const outcome = await runDrill(nameDrill, await drillDeps(), {
        ...target,
        user: "adopted",
        password: "x",
      });
      expect(outcome).toMatchObject({
        state: "skipped",
        summary:
          "the role adopted may not create the scratch database in which this drill works: permission denied to create database",
        todo: "to have this drill, as administrator of the database: ALTER ROLE adopted CREATEDB;",
      });
      await sql(target, "ALTER ROLE adopted CREATEDB");
      const allowed = await runDrill(nameDrill, await drillDeps(), {
        ...target,
        user: "adopted",
        password: "x",
      });
      expect(allowed.state).toBe("passed");
      expect(await drillDatabases(target)).toEqual([]);
    });

    test("no space: the drill fails with what PostgreSQL says", async () => {
      const target = await postgres.createDatabase();
      const deps = await drillDeps({
        sql: `CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
          CREATE TRIGGER full_disk BEFORE INSERT ON node_names EXECUTE FUNCTION full_disk()`,
      });
      expect(await runDrill(nameDrill, deps, target)).toMatchObject({
        state: "failed",
        summary: "PostgreSQL has no space: could not extend file",
        todo: "make space on the disk of PostgreSQL's data, then run the drill again",
      });
      expect(await drillDatabases(target)).toEqual([]);
    });

    test("the database ends in the middle: the drill fails, and says so", async () => {
      const target = await postgres.createDatabase();
      const deps = await drillDeps({
        sql: `CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
          CREATE TRIGGER cut BEFORE INSERT ON node_names FOR EACH ROW EXECUTE FUNCTION cut()`,
      });
      const outcome = await runDrill(nameDrill, deps, target);
      expect(outcome.state).toBe("failed");
      expect(outcome.summary).toMatch(/^PostgreSQL did not do what the drill asked: .*terminat/i);
      expect(await drillDatabases(target)).toEqual([]);
    });

    test("no database answers: the error names it", async () => {
      const target = { ...(await postgres.createDatabase()), port: await freePort() };
      const failing = runDrill(nameDrill, await drillDeps(), target);
      await expect(failing).rejects.toThrow(/can't be reached/);
      await expect(failing).rejects.toBeInstanceOf(OperatorError);
    });

    test("two masters of one Postgres drill at the same time", async () => {
      const target = await postgres.createDatabase();
      const deps = await drillDeps();
      const outcomes = await Promise.all([
        runDrill(nameDrill, deps, target),
        runDrill(leaseDrill, deps, target, { master: masterOn(target, OTHER) }),
      ]);
      expect(outcomes.map(({ state }) => state)).toEqual(["passed", "passed"]);
      expect(await drillDatabases(target)).toEqual([]);
    });

    test("over TLS, as on a second master: also the crons of the drill", async () => {
      const home = await postgres.createDatabase();
      const sslCa = join(data, "ca.pem");
      const target = { ...home, ssl: "verify-full", sslCa } as const;
      const outcome = await runDrill(leaseDrill, await drillDeps(), target);
      expect(outcome).toMatchObject({ state: "passed" });
    });
  },
  {
    template: migrate,
    settings: ["ssl=on"],
    async prepare(directory) {
      data = directory;
      await writeFile(join(directory, "server.crt"), issued.certificate);
      await writeFile(join(directory, "server.key"), issued.key);
      await chmod(join(directory, "server.key"), 0o600);
      await writeFile(join(directory, "ca.pem"), authority.certificate);
    },
  },
);
