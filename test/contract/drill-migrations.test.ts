import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { openPostgresPool } from "../../src/database/postgres.ts";
import { postgresWriter } from "../../src/database/postgres-writer.ts";
import type { DrillOutcome } from "../../src/drills/drill.ts";
import { migrationsDrill } from "../../src/drills/migrations-drill.ts";
import { random } from "../../src/machine/clock.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { drillDatabases, runDrill } from "../support/drills.ts";
import { ledgerOf, listen, migratorOf, SHIPPED_FILES, SHIPPED_VERSIONS } from "../support/migrations.ts";
import { migrate } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { inSession, sql } from "../support/postgres-server.ts";
import { makeUpstreamDatabase } from "../support/upstream-database.ts";

const INDEX = "idx_credit_history_hourly_dedup";

const deps = {
  host: { migrations: migratorOf(), postgres: postgresWriter, random },
  hostname: "a-master",
  hash: (text: string) => createHash("sha256").update(text).digest("hex"),
  openPool: openPostgresPool,
};

/** Runs the drill as `fula-node drill` does. Nothing is left. */
async function drillOn(target: PostgresTarget, stop = new AbortController().signal): Promise<DrillOutcome> {
  const outcome = await runDrill(migrationsDrill, deps, target, { stop });
  expect(await drillDatabases(target)).toEqual([]);
  return outcome;
}

describeOnPostgres(
  "D2: the effects of the migrations",
  (postgres) => {
    test("passes on a migrated database, with its numbers, and changes nothing", async () => {
      const target = await postgres.createDatabase();
      const before = await ledgerOf(target);
      const { state, summary, todo, evidence } = await drillOn(target);
      expect({ state, todo }).toEqual({ state: "passed", todo: null });
      expect(summary).toMatch(
        new RegExp(`^${SHIPPED_VERSIONS.length} migrations applied; all \\d+ parts and \\d+ named objects`),
      );
      expect(Number(evidence["parts"])).toBeGreaterThan(SHIPPED_VERSIONS.length);
      expect(await ledgerOf(target)).toEqual(before);
    });

    test.each([
      [
        "an index that was left INVALID",
        `UPDATE pg_index SET indisvalid = false WHERE indexrelid = '${INDEX}'::regclass`,
        INDEX,
      ],
      [
        "an INVALID index whose validity no migration asks for",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_pin_work_places'::regclass",
        "not valid, so nothing uses it: index idx_pin_work_places on pin_work",
      ],
      [
        "an INVALID index of somebody else's on our table",
        "CREATE INDEX theirs ON pins (cid); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'theirs'::regclass",
        "index theirs on pins",
      ],
      ["an index that is gone", "DROP INDEX idx_pin_work_places", "idx_pin_work_places"],
      ["a table that is gone", "DROP TABLE node_releases", "node_releases"],
      [
        "a constraint that was never validated",
        "ALTER TABLE deposits ADD CONSTRAINT late CHECK (log_index >= 0) NOT VALID",
        "not validated: constraint late on deposits",
      ],
      [
        "a trigger that was turned off",
        "ALTER TABLE pins DISABLE TRIGGER pins_count_insert",
        "trigger pins_count_insert on pins",
      ],
      [
        "foreign keys that are not kept any more",
        "ALTER TABLE api_keys DISABLE TRIGGER ALL",
        "turned off: trigger",
      ],
      [
        "a row that the ledger lacks",
        `DELETE FROM fula_node.migrations WHERE version = ${SHIPPED_VERSIONS.at(-1)}`,
        `${SHIPPED_FILES.at(-1)} (its effect already exists)`,
      ],
      [
        "a row in the middle that the ledger lacks",
        "DELETE FROM fula_node.migrations WHERE version = 25",
        "025_accounts",
      ],
      [
        "a checksum that differs",
        "UPDATE fula_node.migrations SET sha256 = repeat('0', 64) WHERE version = 33",
        "033_deposits.sql",
      ],
      [
        "a run that was interrupted",
        `UPDATE fula_node.migrations SET state = 'applying' WHERE version = ${SHIPPED_VERSIONS.at(-1)}`,
        String(SHIPPED_FILES.at(-1)),
      ],
      ["a ledger that is gone", "DROP SCHEMA fula_node CASCADE", "001_schema.sql"],
    ])("fails for %s", async (_, breaks, words) => {
      const target = await postgres.createDatabase();
      await sql(target, breaks);
      const { state, summary, todo } = await drillOn(target).catch((thrown: unknown) => ({
        state: "failed",
        summary: (thrown as Error).message,
        todo: (thrown as { remedy?: string }).remedy ?? null,
      }));
      expect(state).toBe("failed");
      expect(summary).toContain(words);
      expect(todo).toMatch(/\w{4}/);
    });

    test.each([
      [
        "a check that is gone",
        "ALTER TABLE pins DROP CONSTRAINT pins_status_check",
        "missing: constraint pins_status_check on pins",
        /ALTER TABLE pins ADD CONSTRAINT pins_status_check CHECK \(.+\);$/,
      ],
      [
        "a weaker check that was validated",
        `ALTER TABLE pins DROP CONSTRAINT pins_status_check;
         ALTER TABLE pins ADD CONSTRAINT pins_status_check CHECK (status <> '') NOT VALID;
         ALTER TABLE pins VALIDATE CONSTRAINT pins_status_check`,
        "not as the migrations make it: constraint pins_status_check on pins",
        /ALTER TABLE pins DROP CONSTRAINT pins_status_check, ADD CONSTRAINT pins_status_check CHECK \(.+\);$/,
      ],
      [
        "a foreign key that is gone",
        "ALTER TABLE referral_bonuses DROP CONSTRAINT referral_bonuses_credit_history_id_fkey",
        "missing: constraint referral_bonuses_credit_history_id_fkey on referral_bonuses",
        /ADD CONSTRAINT referral_bonuses_credit_history_id_fkey FOREIGN KEY \(credit_history_id\) REFERENCES .+;$/,
      ],
      [
        "a default that is gone",
        "ALTER TABLE pins ALTER status DROP DEFAULT",
        "missing: default pins.status",
        /ALTER TABLE pins ALTER COLUMN status SET DEFAULT 'queued'.*;$/,
      ],
      [
        "an index on another column",
        "DROP INDEX idx_logins_created; CREATE INDEX idx_logins_created ON logins (id)",
        "not as the migrations make it: index idx_logins_created on logins",
        /DROP INDEX CONCURRENTLY idx_logins_created; CREATE INDEX CONCURRENTLY idx_logins_created ON public\.logins .+;$/,
      ],
      [
        "a function with another body",
        "CREATE OR REPLACE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "not as the migrations make it: function update_updated_at_column()",
        /grep -nw 'update_updated_at_column' \/opt\/fula-master\/cli\/current\/migrations\/\*\.sql/,
      ],
      [
        "a trigger that is gone",
        "DROP TRIGGER pins_usage_delete ON pins",
        "missing: trigger pins_usage_delete on pins",
        /CREATE TRIGGER pins_usage_delete AFTER DELETE ON .+;$/,
      ],
    ])("compares definitions: fails for %s, and its statements repair it", async (_, breaks, words, todo) => {
      const target = await postgres.createDatabase();
      await sql(target, breaks);
      const outcome = await drillOn(target);
      expect(outcome).toMatchObject({ state: "failed" });
      expect(outcome.summary).toBe(words);
      expect(outcome.todo).toMatch(todo);
      const statements = outcome.todo?.split("with psql: ")[1];
      if (statements === undefined) return;
      for (const statement of statements.split("; ")) await sql(target, statement);
      expect((await drillOn(target)).state).toBe("passed");
    });

    test("what the operator added passes, and is named; a dump that was restored is the same", async () => {
      const target = await postgres.createDatabase();
      await sql(
        target,
        `CREATE TABLE mine (id integer PRIMARY KEY, at text); CREATE INDEX theirs ON pins (cid);
         ALTER TABLE pins ADD COLUMN note text; ALTER SEQUENCE credit_history_id_seq MINVALUE -2147483647`,
      );
      // As a dump and a restore write them.
      for (const { again } of await sql<{ again: string }>(
        target,
        `SELECT format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s', conrelid::regclass, conname, conname,
           pg_get_constraintdef(oid)) AS again FROM pg_constraint
         WHERE contype = 'c' AND conrelid <> 0 AND connamespace = 'public'::regnamespace`,
      ))
        await sql(target, again);
      const { state, summary, evidence } = await drillOn(target);
      expect(summary).toMatch(/; \d{3,} definitions are as the migrations make them$/);
      expect(state).toBe("passed");
      expect(evidence["not made by migrations"]?.split(", ").toSorted()).toEqual([
        "column pins.note",
        "index theirs on pins",
        "table mine",
      ]);
    });

    test("several faults have a remedy each, with their names in quotes where SQL needs them, and no more than six", async () => {
      const target = await postgres.createDatabase();
      await sql(
        target,
        `CREATE INDEX "The irs" ON pins (cid); UPDATE pg_index SET indisvalid = false WHERE indexrelid = '"The irs"'::regclass;
         ALTER TABLE pins DISABLE TRIGGER pins_count_insert;
         ALTER TABLE deposits ADD CONSTRAINT "Late" CHECK (log_index >= 0) NOT VALID`,
      );
      const { todo } = await drillOn(target);
      expect(todo).toBe(
        'find out who changed it; correct the rows that break a constraint; with psql: REINDEX INDEX CONCURRENTLY "The irs"; ' +
          'ALTER TABLE pins ENABLE TRIGGER pins_count_insert; ALTER TABLE deposits VALIDATE CONSTRAINT "Late";',
      );
      await sql(target, "ALTER TABLE api_keys DISABLE TRIGGER ALL; ALTER TABLE pins DISABLE TRIGGER ALL");
      const many = await drillOn(target);
      expect(many.todo?.match(/;/g)?.length).toBeLessThan(12);
      expect(many.todo).toMatch(/then run this drill again for the other \d+/);
    });

    test("a table that another session locks fails it, in clear words", async () => {
      const target = await postgres.createDatabase();
      await inSession(target, async (client) => {
        await client.query("BEGIN; LOCK TABLE pins IN ACCESS EXCLUSIVE MODE");
        const { state, summary, todo } = await drillOn(target);
        expect({ state, summary }).toEqual({
          state: "failed",
          summary: "a session holds a lock on a table: canceling statement due to lock timeout",
        });
        expect(todo).toContain("wait until that session ends, or end it");
        const [, question = ""] = todo?.split("with psql: ") ?? [];
        expect((await sql<{ relation: string }>(target, question)).map(({ relation }) => relation)).toContain(
          "pins",
        );
        await client.query("ROLLBACK");
      });
    });

    test("a role that may create no database: passes as before, and says that it did not compare definitions", async () => {
      const target = await postgres.createDatabase();
      await sql(
        target,
        "CREATE ROLE limited LOGIN PASSWORD 'x'; GRANT pg_read_all_data TO limited; GRANT USAGE ON SCHEMA fula_node TO limited",
      );
      const outcome = await drillOn({ ...target, user: "limited", password: "x" });
      expect(outcome).toMatchObject({ state: "passed" });
      expect(outcome.summary).toContain(
        "; their definitions were not compared (the role limited may not create",
      );
      expect(outcome.summary).toContain("ALTER ROLE limited CREATEDB;");
    });

    test("stops when it is told to", async () => {
      const target = await postgres.createDatabase();
      const stop = new AbortController();
      stop.abort();
      await expect(drillOn(target, stop.signal)).rejects.toThrow(/abort/i);
    });
  },
  { template: migrate },
);

describeOnPostgres("D2 where upstream's installer made the database", (postgres) => {
  test("passes on a database that upstream's installer made and fula-node adopted", async () => {
    const target = await postgres.createDatabase();
    await makeUpstreamDatabase(target, 20);
    await migratorOf().up(target, listen());
    expect((await drillOn(target)).summary).toContain(
      "; their definitions were not compared (another installer made the first tables)",
    );
    expect((await drillOn(target)).state).toBe("passed");
  });
});
