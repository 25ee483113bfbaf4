import { expect, test } from "vitest";
import { OperatorError } from "../../src/errors.ts";
import { ledgerOf, listen, makesTable, migrationsDirectory, migratorOf } from "../support/migrations.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { inSession, sql } from "../support/postgres-server.ts";

const A = { "001_a.sql": makesTable("a") };
const C = { "003_c.sql": makesTable("c") };

describeOnPostgres("a ledger and files that do not fit", (postgres) => {
  test.each([
    ["an edited file", { ...A, ...C, "001_a.sql": makesTable("a", "-- edited") }, "integrity", "001_a.sql"],
    ["a missing file", C, "integrity", "001_a.sql"],
    ["a file out of order", { ...A, ...C, "002_b.sql": makesTable("b") }, "integrity", "002_b.sql"],
    ["a database of a newer version", A, "newer", "003_c.sql"],
  ])("%s is refused by status, up and down, and nothing is changed", async (_, files, exit, subject) => {
    const target = await postgres.createDatabase();
    await migratorOf({ directory: await migrationsDirectory({ ...A, ...C }) }).up(target, listen());
    const migrator = migratorOf({ directory: await migrationsDirectory(files) });
    const refusal = { exit, problems: [{ subject, what: expect.any(String) }], changed: undefined };

    await expect(migrator.status(target)).rejects.toMatchObject(refusal);
    await expect(migrator.up(target, listen())).rejects.toMatchObject(refusal);
    await expect(migrator.down(target, [1], listen())).rejects.toMatchObject(refusal);
    expect(await ledgerOf(target)).toEqual(["1 applied applied", "3 applied applied"]);
  });

  test("the four cases have four different errors", async () => {
    const target = await postgres.createDatabase();
    await migratorOf({ directory: await migrationsDirectory({ ...A, ...C }) }).up(target, listen());
    const tell = async (files: Readonly<Record<string, string>>): Promise<string> => {
      const directory = await migrationsDirectory(files);
      return migratorOf({ directory })
        .status(target)
        .then(
          () => "fine",
          (thrown: OperatorError) => thrown.what,
        );
    };

    expect([
      await tell({ ...A, ...C, "001_a.sql": makesTable("a", "-- edited") }),
      await tell(C),
      await tell({ ...A, ...C, "002_b.sql": makesTable("b") }),
      await tell(A),
    ]).toEqual([
      "Migrations were edited after they were applied: 001_a.sql.",
      "The database has migrations whose files are missing: 001_a.sql.",
      "Migrations are out of order: 002_b.sql not applied, but 003 is.",
      "The database was migrated by a newer fula-node (0.0.0-test): it has 003_c.sql.",
    ]);
  });
});

describeOnPostgres("a file that fails", (postgres) => {
  test("halts the run, leaves nothing behind, is shown with its place, and is retried by the next run", async () => {
    const target = await postgres.createDatabase();
    const broken = makesTable("b").concat("SELECT 1,\n  nowhere FROM b;\n");
    const directory = await migrationsDirectory({ ...A, "002_b.sql": broken, ...C });

    const failure = await migratorOf({ directory })
      .up(target, listen())
      .catch((thrown: unknown) => thrown);

    expect(failure).toBeInstanceOf(OperatorError);
    expect(failure).toMatchObject({
      exit: "interrupted",
      what: '002_b.sql failed: column "nowhere" does not exist (SQLSTATE 42703).',
      why: "002_b.sql:7:3: its changes were rolled back\n7 |   nowhere FROM b;\n  |   ^",
      changed: "001 applied; they stay applied",
    });
    expect(await ledgerOf(target)).toEqual(["1 applied applied", "2 applied failed"]);
    const [row] = await sql(target, "SELECT error FROM fula_node.migrations WHERE version = 2");
    expect(row).toEqual({ error: '002_b.sql:7:3: column "nowhere" does not exist (SQLSTATE 42703)' });
    expect(await sql(target, "SELECT FROM pg_class WHERE relname IN ('b', 'c')")).toEqual([]);

    const mended = await migrationsDirectory({ ...A, "002_b.sql": makesTable("b"), ...C });
    const { done } = await migratorOf({ directory: mended }).up(target, listen());
    expect(done.map(({ version, action }) => `${version} ${action}`)).toEqual(["2 retry", "3 apply"]);
  });

  test("without a position from PostgreSQL the statement's beginning is shown", async () => {
    const target = await postgres.createDatabase();
    const directory = await migrationsDirectory({
      "001_a.sql": makesTable("a").concat("\n  CREATE TABLE a ();"),
    });

    await expect(migratorOf({ directory }).up(target, listen())).rejects.toMatchObject({
      why: expect.stringContaining(
        "001_a.sql:7:3: its changes were rolled back\n7 |   CREATE TABLE a ();\n  |   ^",
      ),
    });
  });

  test("neither the error nor the ledger quotes rows", async () => {
    const target = await postgres.createDatabase();
    await sql(target, "CREATE TABLE seen (secret text)");
    await sql(target, "INSERT INTO seen VALUES ('hunter2'), ('hunter2')");
    const directory = await migrationsDirectory({
      "001_a.sql": makesTable("a").concat("CREATE UNIQUE INDEX one ON seen (secret);"),
    });

    const failure = await migratorOf({ directory })
      .up(target, listen())
      .catch((thrown: unknown) => thrown);

    const { what, why, remedy } = failure as OperatorError;
    expect(JSON.stringify({ what, why, remedy })).toContain("could not create unique index");
    expect(JSON.stringify({ what, why, remedy })).not.toContain("hunter2");
    const ledger = JSON.stringify(await sql(target, "SELECT * FROM fula_node.migrations"));
    expect(ledger).toContain("could not create unique index");
    expect(ledger).not.toContain("hunter2");
  });

  test("018 names what is booked twice before it builds anything", async () => {
    const target = await postgres.createDatabase();
    await migratorOf().up(target, listen());
    await migratorOf().down(target, [18], listen());
    await sql(
      target,
      `INSERT INTO credit_history (user_id, tx_type, amount_fula, balance_after, reference_id)
       SELECT 'user' || lpad(n::text, 2, '0'), 'hourly_deduction', -1, 0, 'hour:2026-06-12T14'
       FROM generate_series(1, 12) AS n, generate_series(1, 2)`,
    );

    const failure = await migratorOf()
      .up(target, listen())
      .catch((thrown: unknown) => thrown);

    expect(failure).toMatchObject({
      exit: "drift",
      what: expect.stringContaining(
        "12 (user_id, reference_id) pair(s) of hourly deductions are booked more than once",
      ),
      remedy: expect.stringContaining("run the migrations again"),
    });
    const { why } = failure as OperatorError;
    expect(why).toContain("The first 10: (user01, hour:2026-06-12T14) 2 times; (user02, ");
    expect(why).toContain("(user10, hour:2026-06-12T14) 2 times");
    expect(why).not.toContain("user11");
    expect(
      await sql(target, "SELECT FROM pg_class WHERE relname = 'idx_credit_history_hourly_dedup'"),
    ).toEqual([]);
    await sql(
      target,
      "DELETE FROM credit_history a USING credit_history b WHERE a.user_id = b.user_id AND a.id > b.id",
    );
    expect((await migratorOf().up(target, listen())).done).toMatchObject([{ version: 18, action: "retry" }]);
  });

  test("a locked table is reported as a transient error", async () => {
    const target = await postgres.createDatabase();
    await sql(target, "CREATE TABLE seen (id integer)");
    const directory = await migrationsDirectory({
      "001_a.sql": makesTable(
        "a",
        "SET LOCAL lock_timeout = '50ms';\nALTER TABLE seen ADD COLUMN more text;",
      ),
    });

    await inSession(target, async (reader) => {
      await reader.query("BEGIN; SELECT * FROM seen");
      await expect(migratorOf({ directory }).up(target, listen())).rejects.toMatchObject({
        exit: "unavailable",
        remedy: "Another session holds a lock on the table (a backup, a long query). Run again.",
      });
    });
    expect(await ledgerOf(target)).toEqual(["1 applied failed"]);
  });

  test("a directory that can't be read, or holds nothing, is reported before any query", async () => {
    const target = { ...postgres.target, port: 1 };

    await expect(migratorOf({ directory: "/nowhere" }).up(target, listen())).rejects.toMatchObject({
      exit: "integrity",
      what: expect.stringContaining("/nowhere"),
    });
    await expect(
      migratorOf({ directory: await migrationsDirectory({}) }).up(target, listen()),
    ).rejects.toMatchObject({ exit: "integrity" });
  });
});
