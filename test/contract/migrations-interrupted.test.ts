import { expect, test } from "vitest";
import {
  BUILDS_INDEX,
  ledgerOf,
  listen,
  makesTable,
  migrationsDirectory,
  migratorOf,
  until,
} from "../support/migrations.ts";
import { startChild } from "../support/migrate-process.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { inSession, sql } from "../support/postgres-server.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

/** Makes its table at once, and then takes as long as somebody else holds an advisory lock of this number. */
const HELD_UP = makesTable("held_up").concat("SELECT pg_advisory_xact_lock(4711);\n");

describeOnPostgres("a run that is cut short", (postgres) => {
  test("kill -9 inside a transactional file: it leaves nothing but its mark, and the next run goes on", async () => {
    const target = await postgres.createDatabase();
    const directory = await migrationsDirectory({
      "001_before.sql": makesTable("before"),
      "002_held_up.sql": HELD_UP,
      "003_after.sql": makesTable("after"),
    });

    await inSession(target, async (holder) => {
      await holder.query("SELECT pg_advisory_lock(4711)");
      const child = startChild(target, directory);
      await until("002 is held up", async () => (await waiting(target, "%pg_advisory_xact_lock%")) === 1);
      child.kill("SIGKILL");
      expect((await child).signal).toBe("SIGKILL");
      await until("the killed runner's session is gone", async () => (await runners(target)) === 0);
    });

    expect(await ledgerOf(target)).toEqual(["1 applied applied", "2 applied applying"]);
    expect(await exists(target, "held_up")).toBe(false);
    const status = await migratorOf({ directory }).status(target);
    expect(status.items.map(({ action }) => action)).toEqual(["none", "retry", "apply"]);
    expect(status.items[1]?.reason).toBe(
      "a run of fula-node 0.0.0-child was interrupted; it left nothing behind",
    );

    const { done } = await migratorOf({ directory }).up(target, listen());

    expect(done.map(({ version, action }) => `${version} ${action}`)).toEqual(["2 retry", "3 apply"]);
    expect(await ledgerOf(target)).toEqual(["1 applied applied", "2 applied applied", "3 applied applied"]);
    expect(await exists(target, "held_up")).toBe(true);
  });

  test("kill -9 inside CREATE INDEX CONCURRENTLY: the INVALID index is cleared and built anew", async () => {
    const target = await postgres.createDatabase();
    const directory = await migrationsDirectory({
      "001_slow.sql": makesTable("slow"),
      "002_index.sql": BUILDS_INDEX,
      "003_after.sql": makesTable("after"),
    });
    const first = await migrationsDirectory({ "001_slow.sql": makesTable("slow") });
    await migratorOf({ directory: first }).up(target, listen());

    await inSession(target, async (writer) => {
      await writer.query("BEGIN; INSERT INTO slow VALUES (1)");
      const child = startChild(target, directory);
      await until(
        "the build waits for the writer",
        async () => (await waiting(target, "CREATE UNIQUE INDEX%")) === 1,
      );
      child.kill("SIGKILL");
      expect((await child).signal).toBe("SIGKILL");
      await until("the killed runner's session is gone", async () => (await runners(target)) === 0);
      await writer.query("COMMIT");
    });

    expect(await ledgerOf(target)).toEqual(["1 applied applied", "2 applied applying"]);
    expect(await validity(target)).toEqual([false]);

    const { done } = await migratorOf({ directory }).up(target, listen());

    expect(done.map(({ version, action }) => `${version} ${action}`)).toEqual([
      "2 clear-and-retry",
      "3 apply",
    ]);
    expect(await validity(target)).toEqual([true]);
    expect(await ledgerOf(target)).toEqual(["1 applied applied", "2 applied applied", "3 applied applied"]);
  });

  test("a session ended from outside: unavailable, and the next run goes on", async () => {
    const target = await postgres.createDatabase();
    const directory = await migrationsDirectory({
      "001_before.sql": makesTable("before"),
      "002_held_up.sql": HELD_UP,
    });

    await inSession(target, async (holder) => {
      await holder.query("SELECT pg_advisory_lock(4711)");
      const run = migratorOf({ directory }).up(target, listen());
      run.catch(() => {});
      await until("002 is held up", async () => (await waiting(target, "%pg_advisory_xact_lock%")) === 1);
      await holder.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%migrations'",
      );
      await expect(run).rejects.toMatchObject({
        exit: "unavailable",
        changed: "001 applied; they stay applied",
      });
    });

    expect(await ledgerOf(target)).toEqual(["1 applied applied", "2 applied applying"]);
    await migratorOf({ directory }).up(target, listen());
    expect(await ledgerOf(target)).toEqual(["1 applied applied", "2 applied applied"]);
  });

  test("the effect and its mark are one: what can't be marked is not there either", async () => {
    const target = await postgres.createDatabase();
    const first = await migrationsDirectory({ "001_a.sql": makesTable("a") });
    await migratorOf({ directory: first }).up(target, listen());
    await sql(target, REFUSES_MARKS);
    await sql(
      target,
      `CREATE TRIGGER refuse BEFORE UPDATE ON fula_node.migrations
       FOR EACH ROW WHEN (NEW.state = 'applied') EXECUTE FUNCTION public.refuse_marks()`,
    );
    const directory = await migrationsDirectory({
      "001_a.sql": makesTable("a"),
      "002_b.sql": makesTable("b"),
    });

    await expect(migratorOf({ directory }).up(target, listen())).rejects.toMatchObject({
      changed: expect.any(String),
    });

    expect(await exists(target, "b")).toBe(false);
    expect(await ledgerOf(target)).toEqual(["1 applied applied", "2 applied failed"]);
  });

  test("a mark is left although the effect is there: it counts as done by that run", async () => {
    const target = await postgres.createDatabase();
    const directory = await migrationsDirectory({ "001_a.sql": makesTable("a") });
    await migratorOf({ directory }).up(target, listen());
    await sql(target, "UPDATE fula_node.migrations SET state = 'applying'");

    const { done } = await migratorOf({ directory }).up(target, listen());

    expect(done).toMatchObject([{ version: 1, action: "adopt" }]);
    expect(await ledgerOf(target)).toEqual(["1 applied applied"]);
  });
});

const REFUSES_MARKS = `
  CREATE FUNCTION public.refuse_marks() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN RAISE EXCEPTION 'no marks today'; END $$`;

async function waiting(target: PostgresTarget, query: string): Promise<number> {
  const rows = await sql(
    target,
    `SELECT FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND wait_event_type = 'Lock' AND query LIKE $1`,
    [query],
  );
  return rows.length;
}

async function runners(target: PostgresTarget): Promise<number> {
  const rows = await sql(
    target,
    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%migrations'",
  );
  return rows.length;
}

async function exists(target: PostgresTarget, table: string): Promise<boolean> {
  return (await sql(target, "SELECT FROM pg_class WHERE oid = to_regclass($1)", [table])).length === 1;
}

async function validity(target: PostgresTarget): Promise<readonly boolean[]> {
  const rows = await sql<{ indisvalid: boolean }>(
    target,
    "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('slow_dedup')",
  );
  return rows.map(({ indisvalid }) => indisvalid);
}
