import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  caretExcerpt,
  guardsOf,
  keywordOf,
  placeOf,
  splitStatements,
} from "../../../src/database/migration-file.ts";

const textsOf = (sql: string): readonly string[] => splitStatements(sql).map(({ text }) => text);

describe("splitStatements", () => {
  test.each([
    ["plain ones", "SELECT 1; SELECT 2;", ["SELECT 1", "SELECT 2"]],
    ["a last one without semicolon", "SELECT 1;\nSELECT 2\n", ["SELECT 1", "SELECT 2"]],
    ["empty ones", ";;\n ;", []],
    ["nothing but comments", "-- one; two\n/* three; */", []],
    [
      "comments around and inside",
      "-- a;\nSELECT /* ; */ 1 -- b;\n+ 2; -- c",
      ["SELECT /* ; */ 1 -- b;\n+ 2"],
    ],
    ["nested comments", "/* a /* b; */ c; */ SELECT 1;", ["SELECT 1"]],
    ["quotes", `SELECT ';', 'it''s; ', "a;""b";SELECT 2`, [`SELECT ';', 'it''s; ', "a;""b"`, "SELECT 2"]],
    [
      "escape strings",
      String.raw`SELECT E'\';', e'\\'; SELECT 2`,
      [String.raw`SELECT E'\';', e'\\'`, "SELECT 2"],
    ],
    ["a name that ends in e", String.raw`SELECT type'\'; SELECT 2`, [String.raw`SELECT type'\'`, "SELECT 2"]],
    ["dollar quotes", "DO $$ BEGIN; END; $$; SELECT 1", ["DO $$ BEGIN; END; $$", "SELECT 1"]],
    ["tagged dollar quotes", "DO $a$ ; $$ ; $b$ ; $a$; SELECT 1", ["DO $a$ ; $$ ; $b$ ; $a$", "SELECT 1"]],
    [
      "dollars in names and parameters",
      "SELECT a$b$; SELECT $1; SELECT c$b$",
      ["SELECT a$b$", "SELECT $1", "SELECT c$b$"],
    ],
    ["an open quote", "SELECT 'a; b", ["SELECT 'a; b"]],
  ])("%s", (_, sql, statements) => {
    expect(textsOf(sql)).toEqual(statements);
  });

  test("finds the statements that a file was put together from, each at its offset", () => {
    const inside = fc.string({ unit: fc.constantFrom("a", ";", " ", "\n", "-", "*", "é", "😀") });
    const token = fc.oneof(
      inside.map((text) => `'${text}'`),
      inside.map((text) => `"${text}"`),
      inside.map((text) => `$q$${text}$q$`),
      inside.map((text) => `/*${text.replaceAll("*", "").replaceAll("/", "")}*/`),
      inside.map((text) => `--${text.replaceAll("\n", "")}\n`),
    );
    const statement = fc.array(token).map((tokens) => ["SELECT", ...tokens, "x"].join(" "));
    fc.assert(
      fc.property(
        fc.array(statement),
        fc.constantFrom("; ", ";\n-- c ; d\n", " ;/* ; */;"),
        (statements, between) => {
          const sql = statements.join(between);
          const found = splitStatements(sql);
          expect(found.map(({ text }) => text)).toEqual(statements);
          for (const { text, offset } of found) expect(sql.slice(offset, offset + text.length)).toBe(text);
        },
      ),
    );
  });
});

test("keywordOf is the first word, or the psql command", () => {
  expect(splitStatements("create table a ();\n\\c other\n;(SELECT 1)").map(keywordOf)).toEqual([
    "CREATE",
    "\\C",
    "(",
  ]);
});

describe("placeOf", () => {
  const file = "-- é 😀\nSELECT 1;\n\tSELECT '😀', nowhere;\n";

  test("counts characters as PostgreSQL does, lines and columns from 1", () => {
    const offset = file.indexOf("SELECT '");
    const position = Array.from("SELECT '😀', ").length + 1;

    expect(placeOf(file, offset, position)).toEqual({
      line: 3,
      column: 15,
      source: "\tSELECT '😀', nowhere;",
    });
  });

  test("stays in the file whatever the position", () => {
    expect(placeOf("SELECT", 0, 999)).toEqual({ line: 1, column: 7, source: "SELECT" });
  });
});

test("caretExcerpt points under the column, tabs kept", () => {
  expect(caretExcerpt({ line: 12, column: 9, source: "\tSELECT x;" })).toBe(
    "12 | \tSELECT x;\n   | \t       ^",
  );
});

test("the guards of a down file are the DO blocks before its first change", () => {
  const sql = `-- why
LOCK TABLE a IN SHARE MODE;
DO $$ BEGIN PERFORM 1; END; $$;
lock table b;
do $g$ BEGIN PERFORM 2; END; $g$;
DROP TABLE a;
DO $$ BEGIN PERFORM 3; END; $$;`;
  expect(guardsOf(sql).map(({ text }) => text.includes("PERFORM 3"))).toEqual([false, false]);
  expect(guardsOf("DROP TABLE a; DO $$ BEGIN PERFORM 3; END; $$;")).toEqual([]);
});
