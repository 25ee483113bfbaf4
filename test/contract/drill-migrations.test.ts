import { expect, test } from "vitest";
import type { DrillOutcome } from "../../src/drills/drill.ts";
import { migrationsDrill } from "../../src/drills/migrations-drill.ts";
import type { JoinDeps } from "../../src/join/join-run.ts";
import { masterLayout } from "../../src/settings/layout.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { ledgerOf, listen, migratorOf, SHIPPED_VERSIONS } from "../support/migrations.ts";
import { migrate } from "../support/names-database.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";
import { makeUpstreamDatabase } from "../support/upstream-database.ts";

const INDEX = "idx_credit_history_hourly_dedup";

function drillOn(target: PostgresTarget, stop = new AbortController().signal): Promise<DrillOutcome> {
  const settings: Readonly<Record<string, string>> = {
    POSTGRES_HOST: target.host,
    POSTGRES_PORT: String(target.port),
    POSTGRES_DB: target.database,
    POSTGRES_USER: target.user,
    POSTGRES_PASSWORD: target.password,
  };
  const master = { layout: masterLayout("/opt/fula-master"), values: (key: string) => settings[key] };
  const deps = { host: { migrations: migratorOf() } } as unknown as JoinDeps;
  return migrationsDrill.run(deps, { master, stop, report: () => {} });
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
        "DELETE FROM fula_node.migrations WHERE version = 39",
        "039_master_invites.sql (its effect already exists)",
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
        "UPDATE fula_node.migrations SET state = 'applying' WHERE version = 39",
        "039_master_invites.sql",
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
    expect((await drillOn(target)).summary).toContain("migrations applied");
    expect((await drillOn(target)).state).toBe("passed");
  });
});
