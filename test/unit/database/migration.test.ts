import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { type MigrationFile, paddedVersion, parseMigrations } from "../../../src/database/migration-file.ts";
import { OperatorError } from "../../../src/errors.ts";

const ONE =
  "-- fula-node:transaction one\n-- fula-node:parts SELECT 'a' AS part, true AS there\n\nSELECT 1;\n";
const NONE = `-- What it is for.
-- fula-node:transaction none
-- fula-node:parts
--   SELECT 'a' AS part,
--     true AS there
-- fula-node:half-done SELECT false
-- fula-node:clear DROP INDEX CONCURRENTLY IF EXISTS a
-- Not a directive any more.
--   nor this

CREATE INDEX CONCURRENTLY a ON b (c);
`;

const file = (name: string, text: string = ONE): MigrationFile => ({ name, text, sha256: `hash of ${name}` });

function problemsOf(files: readonly MigrationFile[]): readonly string[] {
  try {
    parseMigrations(files);
    return [];
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    expect(thrown.exit).toBe("integrity");
    return thrown.problems.map(({ subject, what }) => `${subject} ${what}`);
  }
}

describe("parseMigrations", () => {
  test("reads files in the order of their numbers, with their directives and down files", () => {
    const files = [
      file("018_b.sql", NONE),
      file("README.md"),
      file("018_b.down.sql", "DROP INDEX a;"),
      file("001_a.sql"),
    ];

    expect(parseMigrations(files)).toEqual([
      {
        version: 1,
        name: "a",
        file: "001_a.sql",
        sql: ONE,
        sha256: "hash of 001_a.sql",
        parts: "SELECT 'a' AS part, true AS there",
        recovery: null,
        down: null,
      },
      {
        version: 18,
        name: "b",
        file: "018_b.sql",
        sql: NONE,
        sha256: "hash of 018_b.sql",
        parts: "SELECT 'a' AS part,\n  true AS there",
        recovery: { halfDone: "SELECT false", clear: "DROP INDEX CONCURRENTLY IF EXISTS a" },
        down: { file: "018_b.down.sql", sql: "DROP INDEX a;" },
      },
    ]);
  });

  test("the shipped files are fine, and 001 alone can't be taken back", () => {
    const directory = fileURLToPath(new URL("../../../migrations", import.meta.url));
    const shipped = readdirSync(directory).map((name) =>
      file(name, readFileSync(join(directory, name), "utf8")),
    );

    const migrations = parseMigrations(shipped);

    expect(migrations.slice(0, 4).map(({ version, recovery }) => [version, recovery !== null])).toEqual([
      [1, false],
      [18, true],
      [19, false],
      [20, false],
    ]);
    expect(migrations.filter(({ down }) => down === null).map(({ version }) => version)).toEqual([1]);
  });

  test.each<[string, readonly MigrationFile[], string]>([
    ["a name without number", [file("a.sql")], "a.sql is not named NNN_name.sql or NNN_name.down.sql"],
    ["a short number", [file("1_a.sql")], "1_a.sql is not named NNN_name.sql or NNN_name.down.sql"],
    ["the number 000", [file("000_a.sql")], "000_a.sql is not named NNN_name.sql or NNN_name.down.sql"],
    ["capitals", [file("001_A.sql")], "001_A.sql is not named NNN_name.sql or NNN_name.down.sql"],
    [
      "a number used twice",
      [file("001_a.sql"), file("001_b.sql")],
      "001_b.sql has the same number as 001_a.sql",
    ],
    [
      "a down file alone",
      [file("001_a.sql"), file("002_b.down.sql")],
      "002_b.down.sql is a down file without its migration",
    ],
    [
      "a down file of another name",
      [file("001_a.sql"), file("001_b.down.sql")],
      "001_b.down.sql is a down file without its migration",
    ],
    ["nothing", [], "migrations contains no migration file"],
    ["no statement", [file("001_a.sql", ONE.replace("SELECT 1;", ""))], "001_a.sql contains no statement"],
    [
      "no transaction directive",
      [file("001_a.sql", ONE.replace(/^.*\n/, ""))],
      "001_a.sql must contain `-- fula-node:transaction one` or `-- fula-node:transaction none`",
    ],
    [
      "no parts",
      [file("001_a.sql", "-- fula-node:transaction one\nSELECT 1;")],
      "001_a.sql lacks the directive fula-node:parts",
    ],
    [
      "empty parts",
      [file("001_a.sql", "-- fula-node:transaction one\n-- fula-node:parts\nSELECT 1;")],
      "001_a.sql has an empty directive fula-node:parts",
    ],
    [
      "an unknown directive",
      [file("001_a.sql", `-- fula-node:part x\n${ONE}`)],
      "001_a.sql has the unknown directive fula-node:part",
    ],
    [
      "a directive twice",
      [file("001_a.sql", `-- fula-node:transaction one\n${ONE}`)],
      "001_a.sql has the directive fula-node:transaction twice",
    ],
    [
      "no way to clear",
      [file("001_a.sql", NONE.replace(/^.*:clear.*\n/m, ""))],
      "001_a.sql lacks the directive fula-node:clear",
    ],
    [
      "no way to see what is half done",
      [file("001_a.sql", NONE.replace(/^.*:half-done.*\n/m, ""))],
      "001_a.sql lacks the directive fula-node:half-done",
    ],
    [
      "a way to clear what can't be half done",
      [file("001_a.sql", `-- fula-node:clear x\n${ONE}`)],
      "001_a.sql has fula-node:clear, which is only for files with fula-node:transaction none",
    ],
    [
      "a commit",
      [file("001_a.sql", `${ONE}commit;`)],
      "001_a.sql contains COMMIT, but only fula-node may control transactions",
    ],
    [
      "a begin in a down file",
      [file("001_a.sql"), file("001_a.down.sql", "BEGIN; SELECT 1;")],
      "001_a.down.sql contains BEGIN, but only fula-node may control transactions",
    ],
    ["a psql command", [file("001_a.sql", `${ONE}\\c other`)], "001_a.sql contains the psql command \\c"],
  ])("refuses %s", (_, files, problem) => {
    expect(problemsOf(files)).toContain(problem);
  });

  test("lists everything wrong at once", () => {
    expect(problemsOf([file("a.sql"), file("001_b.sql", "SELECT 1;")])).toHaveLength(3);
  });

  test("BEGIN inside a function's body is none of a transaction", () => {
    expect(problemsOf([file("001_a.sql", `${ONE}DO $$ BEGIN COMMIT; END $$;`)])).toEqual([]);
  });
});

test("paddedVersion has three digits", () => {
  expect([1, 18, 120].map(paddedVersion)).toEqual(["001", "018", "120"]);
});
