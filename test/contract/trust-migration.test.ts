import { expect, test } from "vitest";
import { idOf } from "../support/masters.ts";
import { catalogueOf, listen, migratorOf } from "../support/migrations.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

const VERSION = 38;

describeOnPostgres("migration 038", (postgres) => {
  test("down refuses while a removed master is recorded, and takes back the rest", async () => {
    const target = await postgres.createDatabase();
    await migratorOf().up(target, listen());
    const before = await catalogueOf(target);
    await sql(
      target,
      `INSERT INTO removed_masters (pool, id, name, removed_at, removed_by) VALUES ('pool-a', $1, 'lost', now(), 'other')`,
      [idOf("lost")],
    );
    await expect(migratorOf().down(target, [VERSION], listen())).rejects.toMatchObject({
      exit: "drift",
      what: expect.stringMatching(
        /038_trust\.down\.sql refuses: removed masters are recorded: lost \([0-9a-f]{32}/,
      ),
    });
    await sql(target, "DELETE FROM removed_masters");
    await migratorOf().down(target, [VERSION], listen());
    await migratorOf().up(target, listen());
    expect(await catalogueOf(target)).toEqual(before);
  });

  test("is adopted where the ledger lost it; a part that is missing is named", async () => {
    const target = await postgres.createDatabase();
    await migratorOf().up(target, listen());
    await sql(target, "DROP SCHEMA fula_node CASCADE");
    const { done } = await migratorOf().up(target, listen());
    expect(done.find(({ version }) => version === VERSION)).toMatchObject({ action: "adopt" });
    await sql(target, "DROP SCHEMA fula_node CASCADE; ALTER TABLE master_peers DROP COLUMN trusts");
    await expect(migratorOf().status(target)).rejects.toMatchObject({
      exit: "drift",
      problems: [{ subject: "038_trust.sql", what: "missing: column master_peers.trusts _text" }],
    });
  });
});
