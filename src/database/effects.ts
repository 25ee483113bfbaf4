import type { Client } from "pg";
import { dropsOf, type Migration, namesOf, splitStatements } from "./migration-file.ts";

/** A part of a table. Both names are quoted as in SQL. */
export interface TablePart {
  readonly name: string;
  readonly table: string;
}

/** What the migrations left in a database: how much was looked at, and what is not as they leave it. */
export interface SchemaEffects {
  /** The applied migrations, and those of them that something else ran. */
  readonly applied: readonly number[];
  readonly adopted: readonly number[];
  /** The parts of applied migrations that are there. */
  readonly parts: number;
  /** The tables, indexes, views and sequences that the files create by name and that are there. */
  readonly objects: number;
  /** Those of them that are not there, and the file that creates each. */
  readonly missing: readonly { readonly name: string; readonly file: string }[];
  /** Indexes that PostgreSQL does not use, or that keep nothing unique. */
  readonly invalidIndexes: readonly TablePart[];
  /** Constraints that were never checked for the rows of before. Not those that a file creates so. */
  readonly unvalidated: readonly TablePart[];
  /** Triggers that do not fire. */
  readonly disabledTriggers: readonly TablePart[];
}

/**
 * Looks at what these migrations have created. Reads the catalogue only, and waits for no table. `adopted`: versions that
 * something else ran, of which only the parts are known.
 */
export async function readEffects(
  client: Client,
  migrations: readonly Migration[],
  { parts, adopted }: Pick<SchemaEffects, "parts" | "adopted">,
): Promise<SchemaEffects> {
  const own = migrations.filter(({ version }) => !adopted.includes(version));
  const created = new Map(own.flatMap(({ file, sql }) => namesOf(sql).map((name) => [name, file])));
  for (const { name } of own.flatMap(({ sql }) => dropsOf(sql))) created.delete(name);
  const found = await client.query<{ name: string }>(
    "SELECT relname AS name FROM pg_class WHERE relnamespace = to_regnamespace('public') AND relname = ANY ($1::text[])",
    [[...created.keys()]],
  );
  const there = new Set(found.rows.map(({ name }) => name));
  const indexes = await client.query<TablePart>(
    `SELECT i.indexrelid::regclass::text AS name, i.indrelid::regclass::text AS table
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
     WHERE ${OWN_SCHEMAS("c.relnamespace")} AND NOT (i.indisvalid AND i.indisready AND i.indislive) ORDER BY 1`,
  );
  const meant = new Set(migrations.flatMap(({ sql }) => notValidOf(sql)));
  const constraints = await client.query<TablePart>(
    `SELECT quote_ident(conname) AS name, conrelid::regclass::text AS table FROM pg_constraint
     WHERE ${OWN_SCHEMAS("connamespace")} AND conrelid <> 0 AND NOT convalidated ORDER BY 1, 2`,
  );
  const triggers = await client.query<TablePart>(
    `SELECT quote_ident(t.tgname) AS name, t.tgrelid::regclass::text AS table
     FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
     WHERE ${OWN_SCHEMAS("c.relnamespace")} AND t.tgenabled = 'D' ORDER BY 2, 1`,
  );
  return {
    applied: migrations.map(({ version }) => version),
    adopted,
    parts,
    objects: there.size,
    missing: [...created].flatMap(([name, file]) => (there.has(name) ? [] : [{ name, file }])),
    invalidIndexes: indexes.rows,
    unvalidated: constraints.rows.filter(({ name }) => !meant.has(name)),
    disabledTriggers: triggers.rows,
  };
}

const OWN_SCHEMAS = (column: string): string =>
  `${column} IN (to_regnamespace('public'), to_regnamespace('fula_node'))`;

/** The constraints that a file creates NOT VALID on purpose: they bind new rows only. */
function notValidOf(sql: string): readonly string[] {
  return splitStatements(sql).flatMap(({ text }) =>
    [...text.matchAll(/ADD\s+CONSTRAINT\s+(\w+)\b[^;]*?(?=,\s*ADD\b|$)/gis)].flatMap(([clause, name = ""]) =>
      /\bNOT\s+VALID\b/i.test(clause) ? [name] : [],
    ),
  );
}
