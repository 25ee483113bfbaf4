import { expect, test } from "vitest";
import {
  catalogueOf,
  ledgerOf,
  listen,
  migratorOf,
  SHIPPED_FILES,
  SHIPPED_VERSIONS,
  upstreamNumbers,
} from "../support/migrations.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { inSession, sql } from "../support/postgres-server.ts";

describeOnPostgres("migrations on an empty database", (postgres) => {
  test("status names all files and changes nothing", async () => {
    const target = await postgres.createDatabase();

    const status = await migratorOf().status(target);

    expect(status.items.map(({ file, state, action }) => `${file} ${state} ${action}`)).toEqual(
      SHIPPED_FILES.map((file) => `${file} absent apply`),
    );
    expect(status).toMatchObject({ pending: SHIPPED_FILES.length, hasLedger: false, running: null });
    expect(await catalogueOf(target)).toEqual([]);
    expect(await ledgerOf(target)).toEqual([]);
  });

  test("up applies all files in order and reports a line for each", async () => {
    const target = await postgres.createDatabase();
    const { lines, report } = listen();

    const { done } = await migratorOf().up(target, { report });

    expect(done.map(({ file, action }) => `${file} ${action}`)).toEqual(
      SHIPPED_FILES.map((file) => `${file} apply`),
    );
    expect(lines.map((line) => line.replace(/\d+ ms$/, "N ms"))).toEqual(
      SHIPPED_FILES.map((file) => `${file}: applied in N ms`),
    );
    expect(await ledgerOf(target)).toEqual(SHIPPED_VERSIONS.map((version) => `${version} applied applied`));
  });

  test("the ledger keeps name, checksum, times and tool version", async () => {
    const target = await postgres.createDatabase();
    await migratorOf().up(target, listen());

    const rows = await sql(
      target,
      `SELECT version, name, sha256 ~ '^[0-9a-f]{64}$' AS hashed, error, finished_at >= started_at AS ordered,
         duration_ms >= 0 AS timed, tool_version
       FROM fula_node.migrations WHERE version = 18`,
    );

    expect(rows).toEqual([
      {
        version: 18,
        name: "deduction_idempotency",
        hashed: true,
        error: null,
        ordered: true,
        timed: true,
        tool_version: "0.0.0-test",
      },
    ]);
  });

  test("a second up finds nothing to do", async () => {
    const target = await postgres.createDatabase();
    await migratorOf().up(target, listen());
    const before = await catalogueOf(target);
    const { lines, report } = listen();

    expect(await migratorOf().up(target, { report })).toEqual({ done: [] });
    expect(lines).toEqual([]);
    expect(await catalogueOf(target)).toEqual(before);
    expect(await migratorOf().status(target)).toMatchObject({ pending: 0, hasLedger: true });
  });

  test("up to 020 the schema is upstream's, as written down", async () => {
    const target = await postgres.createDatabase();
    await migratorOf({ directory: await upstreamNumbers() }).up(target, listen());

    const catalogue = await catalogueOf(target);

    await expect(`${catalogue.join("\n")}\n`).toMatchFileSnapshot("golden/schema-020.txt");
  });

  test("a table of ours goes into public whatever schema a role's name would put first", async () => {
    const target = await postgres.createDatabase();
    await inSession(target, async (client) => {
      await client.query("CREATE ROLE fula_node LOGIN SUPERUSER PASSWORD 'only-for-tests'");
    });

    await migratorOf().up({ ...target, user: "fula_node" }, listen());

    const ours = await sql<{ relname: string }>(
      target,
      "SELECT relname FROM pg_class WHERE relnamespace = 'fula_node'::regnamespace AND relkind = 'r' ORDER BY 1",
    );
    expect(ours.map(({ relname }) => relname)).toEqual(["flags_in_use", "migrations"]);
    expect(await sql(target, "SELECT FROM pg_class WHERE oid = 'public.users'::regclass")).toHaveLength(1);
  });

  test("the hourly deduction's ON CONFLICT has its arbiter", async () => {
    const target = await postgres.createDatabase();
    await migratorOf().up(target, listen());
    const book = `INSERT INTO credit_history (user_id, tx_type, amount_fula, balance_after, reference_id)
      VALUES ('u1', 'hourly_deduction', -1, 9, 'hour:2026-06-12T14')
      ON CONFLICT (user_id, reference_id) WHERE tx_type = 'hourly_deduction' DO NOTHING RETURNING id`;

    expect(await sql(target, book)).toHaveLength(1);
    expect(await sql(target, book)).toHaveLength(0);
  });

  test("a role without privileges gets the name of what is missing", async () => {
    const target = await postgres.createDatabase();
    await sql(target, "CREATE ROLE powerless LOGIN PASSWORD 'only-for-tests'");

    const run = migratorOf().up({ ...target, user: "powerless" }, listen());

    await expect(run).rejects.toMatchObject({
      exit: "preflight",
      what: expect.stringContaining("permission denied"),
    });
    expect(await ledgerOf(target)).toEqual([]);
  });

  test("a read-only status may be asked by a role that sees nothing yet", async () => {
    const target = await postgres.createDatabase();
    await sql(target, "CREATE ROLE onlooker LOGIN PASSWORD 'only-for-tests'");

    expect(await migratorOf().status({ ...target, user: "onlooker" })).toMatchObject({
      pending: SHIPPED_FILES.length,
    });
  });
});
