import { expect, test } from "vitest";
import {
  BUILDS_INDEX,
  ledgerOf,
  listen,
  makesTable,
  migrationsDirectory,
  migratorOf,
  SHIPPED_VERSIONS,
  until,
} from "../support/migrations.ts";
import { startChild } from "../support/migrate-process.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { inSession, sql } from "../support/postgres-server.ts";

const TWENTY = Array.from({ length: 20 }, (_, index) => index);
const EACH_ONCE = SHIPPED_VERSIONS.map((version) => `${version} apply`).sort();
const ALL_APPLIED = SHIPPED_VERSIONS.map((version) => `${version} applied applied`);

describeOnPostgres("many runners of one database", (postgres) => {
  test("twenty in one process: all succeed, each file is applied once", async () => {
    const target = await postgres.createDatabase();

    const runs = await Promise.all(TWENTY.map(() => migratorOf().up(target, listen())));

    expect(
      runs.flatMap(({ done }) => done.map(({ version, action }) => `${version} ${action}`)).sort(),
    ).toEqual(EACH_ONCE);
    expect(await ledgerOf(target)).toEqual(ALL_APPLIED);
  });

  test("twenty processes: all succeed, each file is applied once", async () => {
    const target = await postgres.createDatabase();

    const children = await Promise.all(TWENTY.map(() => startChild(target)));

    expect(children.map(({ exitCode, stderr }) => `${exitCode} ${stderr}`)).toEqual(TWENTY.map(() => "0 "));
    const done = children.flatMap(({ stdout }) => JSON.parse(stdout) as string[]);
    expect(done.sort()).toEqual(EACH_ONCE);
    expect(await ledgerOf(target)).toEqual(ALL_APPLIED);
  });

  test("who waits does not hold up the holder's CREATE INDEX CONCURRENTLY", async () => {
    const target = await postgres.createDatabase();
    const directory = await migrationsDirectory({
      "001_slow.sql": makesTable("slow"),
      "002_index.sql": BUILDS_INDEX,
    });
    await migratorOf({
      directory: await migrationsDirectory({ "001_slow.sql": makesTable("slow") }),
    }).up(target, listen());

    await inSession(target, async (writer) => {
      await writer.query("BEGIN; INSERT INTO slow VALUES (1)");
      const holder = migratorOf({ directory }).up(target, listen());
      await until("the index build waits for the writer", async () => (await building(target)) === 1);
      const waiting = migratorOf({ directory }).up(target, listen());
      await until("the second runner asks for the lock", async () => (await asking(target)) === 1);
      await writer.query("COMMIT");
      expect((await holder).done).toHaveLength(1);
      expect((await waiting).done).toEqual([]);
    });
  });

  test("a run that can't get the lock in time says who holds it, and status says it too", async () => {
    const target = await postgres.createDatabase();
    const directory = await migrationsDirectory({
      "001_slow.sql": makesTable("slow", "SELECT pg_sleep(60);"),
    });
    const holder = migratorOf({ directory, toolVersion: "9.9.9" }).up(target, listen());
    holder.catch(() => {});
    await until("the holder sleeps", async () => (await sleeping(target)) === 1);
    const { lines, report } = listen();

    const refusal = migratorOf({ directory, lockWaitMs: 1_500 }).up(target, { report });

    await expect(refusal).rejects.toMatchObject({
      exit: "locked",
      what: expect.stringMatching(
        /session \d+ \("fula-node 9\.9\.9 migrations"\) from 127\.0\.0\.1, since 20\d\d-/,
      ),
    });
    expect(lines).toEqual([expect.stringMatching(/^waiting for another migration run: session \d+/)]);
    const { running } = await migratorOf({ directory }).status(target);
    expect(running).toMatchObject({ application: "fula-node 9.9.9 migrations", pid: expect.any(Number) });
    await sql(target, "SELECT pg_terminate_backend($1)", [running?.pid]);
    await expect(holder).rejects.toMatchObject({ exit: "unavailable" });
  });

  test("runners of two databases of one server do not wait for each other", async () => {
    const [one, other] = [await postgres.createDatabase(), await postgres.createDatabase()];
    const directory = await migrationsDirectory({
      "001_slow.sql": makesTable("slow", "SELECT pg_sleep(60);"),
    });
    const holder = migratorOf({ directory }).up(one, listen());
    holder.catch(() => {});
    await until("the holder sleeps", async () => (await sleeping(one)) === 1);

    expect(await migratorOf().status(other)).toMatchObject({ running: null });
    const { done } = await migratorOf({ lockWaitMs: 1_000 }).up(other, listen());

    expect(done).toHaveLength(SHIPPED_VERSIONS.length);
    await sql(
      one,
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'",
    );
    await holder.catch(() => {});
  });
});

type Target = Parameters<typeof sql>[0];

async function sessions(target: Target, condition: string): Promise<number> {
  const rows = await sql(
    target,
    `SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND ${condition}`,
  );
  return rows.length;
}

const building = (target: Target): Promise<number> =>
  sessions(target, "query LIKE 'CREATE UNIQUE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'");
const asking = (target: Target): Promise<number> =>
  sessions(target, "query LIKE 'SELECT pg%advisory_lock(%'");
const sleeping = (target: Target): Promise<number> => sessions(target, "wait_event = 'PgSleep'");
