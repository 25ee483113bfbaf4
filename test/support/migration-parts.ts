import { expect, test } from "vitest";
import { catalogueOf, listen, migratorOf } from "./migrations.ts";
import { sql, type TestPostgres } from "./postgres-server.ts";

/**
 * Declares the tests that hold for every migration of ours: where the ledger is lost, it is adopted, and a part that is
 * missing is named. `breaks` has pairs of an SQL statement and the part that it takes away.
 */
export function declarePartTests(
  postgres: Omit<TestPostgres, "stop">,
  { file, breaks }: { readonly file: string; readonly breaks: readonly (readonly [string, string])[] },
): void {
  const version = Number(file.slice(0, 3));

  test(`${file} is adopted where the ledger was lost`, async () => {
    const target = await postgres.createDatabase();
    const before = await catalogueOf(target);
    await sql(target, "DROP SCHEMA fula_node CASCADE");
    const { done } = await migratorOf().up(target, listen());
    expect(done.find((migration) => migration.version === version)).toMatchObject({ action: "adopt" });
    expect(await catalogueOf(target)).toEqual(before);
  });

  test.each(breaks)(`a part of ${file} that is missing is named: %s`, async (statement, named) => {
    const target = await postgres.createDatabase();
    await sql(target, "DROP SCHEMA fula_node CASCADE");
    await sql(target, statement);
    await expect(migratorOf().status(target)).rejects.toMatchObject({
      exit: "drift",
      problems: [{ subject: file, what: `missing: ${named}` }],
    });
  });
}
