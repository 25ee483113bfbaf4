import { expect, test } from "vitest";
import { FakeMigrator } from "../support/fake-migrator.ts";
import { listen, makesTable, migrationsDirectory, migratorOf } from "../support/migrations.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";
import { WriteGate } from "../support/write-gate.ts";
import type { Migrator } from "../../src/database/migrator.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

const FILES = ["001_a.sql", "002_b.sql", "003_c.sql"];

describeOnPostgres("the fake migrator and the real one", (postgres) => {
  const subjects: readonly [string, () => Promise<readonly [Migrator, PostgresTarget]>][] = [
    ["the fake", async () => [makeFake(), postgres.target]],
    ["the real one", async () => [await makeReal(), await postgres.createDatabase()]],
  ];

  test.each(subjects)("%s: pending until up, once, in order, with a line each", async (_, make) => {
    const [migrator, target] = await make();
    const { lines, report } = listen();

    expect(await statesOf(migrator, target)).toEqual(FILES.map((file) => `${file} absent apply`));
    expect(await migrator.status(target)).toMatchObject({ pending: 3, hasLedger: false, running: null });
    const { done } = await migrator.up(target, { report });

    expect(done.map(({ file, action }) => `${file} ${action}`)).toEqual(FILES.map((file) => `${file} apply`));
    expect(lines.map((line) => line.replace(/ in \d+ ms$/, ""))).toEqual(
      FILES.map((file) => `${file}: applied`),
    );
    expect(await statesOf(migrator, target)).toEqual(FILES.map((file) => `${file} applied none`));
    expect(await migrator.status(target)).toMatchObject({ pending: 0, hasLedger: true });
    expect(await migrator.up(target, listen())).toEqual({ done: [] });
  });

  test.each(subjects)("%s: what down took back is pending again", async (_, make) => {
    const [migrator, target] = await make();
    await migrator.up(target, listen());

    expect((await migrator.down(target, [3], listen())).done).toMatchObject([
      { version: 3, action: "revert" },
    ]);
    expect(await migrator.status(target)).toMatchObject({ pending: 1 });
    expect(await migrator.down(target, [3], listen())).toEqual({ done: [] });
    expect((await migrator.up(target, listen())).done).toMatchObject([{ version: 3, action: "apply" }]);
  });

  test.each(subjects)("%s: what a guard says is said before, and when it runs", async (_, make) => {
    const [migrator, target] = await make();
    await migrator.up(target, listen());
    const removes = [{ file: "003_c.down.sql", removes: [expect.stringMatching(/^table c \(\d rows?\)$/)] }];
    expect(await migrator.previewDown(target, [3])).toEqual(removes);
    if (migrator instanceof FakeMigrator) migrator.guards.set(3, "c has rows");
    else await sql(target, "INSERT INTO c VALUES (1)");
    const refusal = {
      exit: "drift",
      what: "003_c.down.sql refuses: c has rows.",
      remedy: 'End "c has rows" first.',
    };
    await expect(migrator.previewDown(target, [3])).rejects.toMatchObject(refusal);
    await expect(migrator.down(target, [3], listen())).rejects.toMatchObject(refusal);
    if (migrator instanceof FakeMigrator) migrator.guards.clear();
    else await sql(target, "DELETE FROM c");
    await migrator.down(target, [3], listen());
    expect(await migrator.previewDown(target, [3])).toEqual([]);
  });
});

/** Refuses while the table has a row. */
const GUARDED = `DO $$ BEGIN
  IF EXISTS (SELECT FROM c) THEN RAISE EXCEPTION 'c has rows' USING HINT = 'End "c has rows" first.'; END IF;
END; $$;
DROP TABLE c;`;

async function statesOf(migrator: Migrator, target: PostgresTarget): Promise<readonly string[]> {
  const { items } = await migrator.status(target);
  return items.map(({ file, state, action }) => `${file} ${state} ${action}`);
}

function makeFake(): FakeMigrator {
  const fake = new FakeMigrator(new WriteGate());
  fake.files = [
    { version: 1, name: "a" },
    { version: 2, name: "b" },
    { version: 3, name: "c" },
  ];
  return fake;
}

async function makeReal(): Promise<Migrator> {
  const directory = await migrationsDirectory({
    "001_a.sql": makesTable("a"),
    "002_b.sql": makesTable("b"),
    "003_c.sql": makesTable("c"),
    "003_c.down.sql": GUARDED,
  });
  return migratorOf({ directory });
}
