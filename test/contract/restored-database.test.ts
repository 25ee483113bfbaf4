import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createDocker } from "../../src/docker/engine-writer.ts";
import { endRestores, restoreDump } from "../../src/steps/master/restored-database.ts";
import { type DumpSource, startDumpSource } from "../support/dump-source.ts";
import { sql } from "../support/postgres-server.ts";
import { isEngineThere } from "../support/tiny-image.ts";

const isThere = isEngineThere();
if (!isThere && process.env["CI"] !== undefined) throw new Error("CI needs a Docker engine for this suite");

const ROLES = ["grafana", `o'dd "role" $1`];
const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

describe.skipIf(!isThere)("the database of a backup", () => {
  let source: DumpSource;
  let other: DumpSource;
  let directory: string;

  const restore = (name: string) =>
    restoreDump(createDocker(process.env), {
      container: other.container,
      user: other.target.user,
      database: other.target.database,
      dump: join(directory, name),
      roles: ROLES,
    });
  const tables = async (): Promise<number> => {
    const found = await sql<{ count: string }>(
      other.target,
      "SELECT count(*) FROM information_schema.tables WHERE table_schema NOT IN ('pg_catalog', 'information_schema')",
    );
    return Number(found[0]?.count);
  };

  beforeAll(async () => {
    source = await startDumpSource("restored-from");
    other = await startDumpSource("restored-into");
    directory = mkdtempSync(join(tmpdir(), "fula-restored-"));
    await sql(source.target, "CREATE TABLE a (n int PRIMARY KEY, t text)");
    await sql(source.target, "INSERT INTO a SELECT n, md5(n::text) FROM generate_series(1, 20000) n");
    await sql(source.target, "CREATE TABLE b (n int REFERENCES a)");
    for (const role of ROLES) {
      await sql(source.target, `CREATE ROLE ${quoted(role)} LOGIN PASSWORD 'x'`);
      await sql(source.target, `GRANT SELECT ON a TO ${quoted(role)}`);
    }
    await sql(source.target, `ALTER TABLE b OWNER TO ${quoted(ROLES[1] ?? "")}`);
    const dump = execFileSync(
      "docker",
      ["exec", source.container, "pg_dump", "-U", "pinning_user", "-Fc", "--compress=0", "pinning_service"],
      { maxBuffer: 64 * 1024 ** 2 },
    );
    writeFileSync(join(directory, "whole.dump"), dump);
    writeFileSync(join(directory, "cut.dump"), dump.subarray(0, Math.floor(dump.length * 0.6)));
  });
  afterAll(() => {
    source?.stop();
    other?.stop();
    rmSync(directory, { recursive: true, force: true });
  });

  it("comes back not at all if its dump ends too early", async () => {
    await expect(restore("cut.dump")).rejects.toMatchObject({ exit: "unhealthy" });
    expect(await tables()).toBe(0);
  });

  it("is not held up by a restore that a killed run left in the container", async () => {
    const left = execa(
      "docker",
      [
        "exec",
        "-e",
        "PGAPPNAME=pg_restore",
        other.container,
        "psql",
        "-U",
        "pinning_user",
        "pinning_service",
      ].concat(["-c", "BEGIN; CREATE TABLE a (n int); SELECT pg_sleep(50); COMMIT"]),
      { reject: false },
    );
    const working =
      "SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep(50)%' AND pid <> pg_backend_pid()";
    await expect.poll(async () => (await sql(other.target, working)).length, { timeout: 20_000 }).toBe(1);
    const { container, target } = other;
    await endRestores(createDocker(process.env), { container, user: target.user, database: target.database });
    expect((await sql(other.target, working)).length).toBe(0);
    expect((await left).exitCode).not.toBe(0);
    expect(await tables()).toBe(0);
  });

  it("comes back with its rows, and with roles that can't log in", async () => {
    await restore("whole.dump");
    expect(await tables()).toBe(2);
    const read = "SELECT md5(string_agg(a::text, ',' ORDER BY n)) AS sum FROM a";
    expect(await sql(other.target, read)).toEqual(await sql(source.target, read));
    const roles = await sql<{ rolname: string; rolcanlogin: boolean }>(
      other.target,
      "SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname = ANY($1)",
      [ROLES],
    );
    expect(roles.toSorted((x, y) => x.rolname.localeCompare(y.rolname))).toEqual(
      ROLES.map((rolname) => ({ rolname, rolcanlogin: false })),
    );
  });

  it("is refused where tables are already, and these stay", async () => {
    await expect(restore("whole.dump")).rejects.toMatchObject({ exit: "unhealthy" });
    expect(await tables()).toBe(2);
  });
});
