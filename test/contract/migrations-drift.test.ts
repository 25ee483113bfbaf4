import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { migrateOneDown } from "../../src/commands/migrate.ts";
import { files } from "../../src/machine/file-writer.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import type { World } from "../../src/world.ts";
import { ledgerOf, listen, migratorOf } from "../support/migrations.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";

const INDEX = "idx_credit_history_hourly_dedup";

describeOnPostgres(
  "a database that something else changed",
  (postgres) => {
    test("018 finds a valid index of that name that is another one: halts with what it is, before it starts", async () => {
      const target = await postgres.createDatabase();
      await migratorOf().down(target, [18], listen());
      await sql(target, `CREATE INDEX ${INDEX} ON credit_history (created_at)`);
      const refusal = {
        exit: "drift",
        what: "The database has something else with a name that 018_deduction_idempotency.sql needs.",
        why: `Found: CREATE INDEX ${INDEX} ON public.credit_history USING btree (created_at).`,
        changed: undefined,
      };

      await expect(migratorOf().status(target)).rejects.toMatchObject(refusal);
      await expect(migratorOf().up(target, listen())).rejects.toMatchObject(refusal);
      expect(await ledgerOf(target)).toContain("18 applied reverted");

      await sql(target, `ALTER INDEX ${INDEX} RENAME TO theirs`);
      expect((await migratorOf().up(target, listen())).done).toMatchObject([
        { version: 18, action: "apply" },
      ]);
    });

    test("018 finds an index of that name on another table", async () => {
      const target = await postgres.createDatabase();
      await migratorOf().down(target, [18], listen());
      await sql(target, `CREATE INDEX ${INDEX} ON pins (user_id)`);
      await expect(migratorOf().up(target, listen())).rejects.toMatchObject({
        exit: "drift",
        why: expect.stringContaining("ON public.pins"),
      });
    });

    test.each([
      ["DROP TABLE users CASCADE", "001_schema.sql", "table users"],
      ["DROP TABLE bucket_roots", "020_bucket_roots.sql", "table bucket_roots"],
      ["DROP TABLE masters", "022_masters.sql", "table masters"],
      ["ALTER TABLE pins DROP COLUMN cid", "001_schema.sql", "column pins.cid text"],
      [`DROP INDEX ${INDEX}`, "018_deduction_idempotency.sql", "valid unique index"],
    ])("%s: seen by status and up, although the ledger says applied", async (breaks, subject, missing) => {
      const target = await postgres.createDatabase();
      await sql(target, breaks);
      const refusal = {
        exit: "integrity",
        what: expect.stringContaining(missing),
        problems: expect.arrayContaining([{ subject, what: expect.stringContaining(`missing: ${missing}`) }]),
      };
      await expect(migratorOf().status(target)).rejects.toMatchObject(refusal);
      await expect(migratorOf().up(target, listen())).rejects.toMatchObject(refusal);
    });

    test.each([
      ["UPDATE fula_node.migrations SET sha256 = 'x' WHERE version = 18", 'row 18: sha256 is "x"'],
      [
        "ALTER TABLE fula_node.migrations DROP CONSTRAINT migrations_state_check; UPDATE fula_node.migrations SET state = 'done' WHERE version = 1",
        'row 1: state is "done"',
      ],
      ["ALTER TABLE fula_node.migrations DROP COLUMN origin", 'column "origin" does not exist'],
    ])("a ledger that was edited is a matter of integrity: %s", async (breaks, found) => {
      const target = await postgres.createDatabase();
      await sql(target, breaks);
      for (const use of [() => migratorOf().status(target), () => migratorOf().down(target, [18], listen())])
        await expect(use()).rejects.toMatchObject({ exit: "integrity", why: expect.stringContaining(found) });
    });

    test("down asks first, and names what it removes", async () => {
      const target = await postgres.createDatabase();
      expect(await migratorOf().previewDown(target, [20, 18])).toEqual([
        { file: "020_bucket_roots.down.sql", removes: ["table bucket_roots (0 rows)"] },
        { file: "018_deduction_idempotency.down.sql", removes: [`index ${INDEX}`] },
      ]);
      const asked: string[] = [];
      const answering = (answer: boolean): World["questions"] => ({
        confirm: async (question) => {
          asked.push(question);
          return answer;
        },
        text: async () => "",
      });
      const down = async (questions: World["questions"], yes = false) =>
        migrateOneDown("020", { baseDir: await baseDirOf(target), yes }, worldOf(questions));

      await expect(down(null)).rejects.toMatchObject({
        exit: "preflight",
        what: "Confirmation required: 020_bucket_roots.down.sql removes table bucket_roots (0 rows).",
        remedy: expect.stringContaining("--yes"),
      });
      await expect(down(answering(false))).rejects.toMatchObject({ exit: "pending" });
      expect(await ledgerOf(target)).toContain("20 applied applied");
      expect(await down(answering(true))).toBe("ok");
      expect(asked[1]).toContain("removes table bucket_roots (0 rows). Revert it?");
      expect(await ledgerOf(target)).toContain("20 applied reverted");
      // What is not applied needs no word.
      expect(await down(null)).toBe("ok");
      await migratorOf().up(target, listen());
      expect(await down(null, true)).toBe("ok");
    });
  },
  { template: async (target) => void (await migratorOf().up(target, listen())) },
);

async function baseDirOf(target: PostgresTarget): Promise<string> {
  const baseDir = await mkdtemp(join(tmpdir(), "fula-node-migrate-"));
  onTestFinished(() => rm(baseDir, { recursive: true }));
  const { host, port, database, user, password } = target;
  const values = {
    POSTGRES_HOST: host,
    POSTGRES_PORT: port,
    POSTGRES_DB: database,
    POSTGRES_USER: user,
    POSTGRES_PASSWORD: password,
  };
  const lines = Object.entries(values).map(([key, value]) => `${key}=${value}\n`);
  await writeFile(join(baseDir, ".env"), lines.join(""), { mode: 0o600 });
  return baseDir;
}

function worldOf(questions: World["questions"]): World {
  return {
    host: { files, migrations: migratorOf(), system: { uid: () => 0 } },
    environment: {},
    hostname: "m1",
    questions,
    reporter: { result: () => {}, note: () => {} },
  } as unknown as World;
}
