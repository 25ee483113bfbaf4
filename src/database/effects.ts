import type { Client } from "pg";
import { dropsOf, type Migration, namesOf, splitStatements } from "./migration-file.ts";

/** What the migrations left in a database: how much was looked at, and what is not as they leave it. */
export interface SchemaEffects {
  /** The parts of applied migrations that are there. The ledger's check refuses a database that lacks one. */
  readonly parts: number;
  /** The tables, indexes, views and sequences that the files create by name and that are there. */
  readonly objects: number;
  /** Those of them that are not there: `table node_names (021_node_names.sql)`. */
  readonly missing: readonly string[];
  /** Indexes that PostgreSQL does not use, or that keep nothing unique: `idx_x on table_x`. */
  readonly invalidIndexes: readonly string[];
  /** Constraints that were never checked for the rows of before: `fk_x on table_x`. Not those that a file creates so. */
  readonly unvalidated: readonly string[];
  /** Triggers that do not fire: `trigger_x on table_x`. */
  readonly disabledTriggers: readonly string[];
}

/**
 * Looks at what these migrations have created. Reads the catalogue only, and waits for no table. `adopted`: versions that
 * something else ran, of which only the parts are known.
 */
export async function readEffects(
  client: Client,
  migrations: readonly Migration[],
  { parts, adopted }: { readonly parts: number; readonly adopted: ReadonlySet<number> },
): Promise<SchemaEffects> {
  const own = migrations.filter(({ version }) => !adopted.has(version));
  const created = new Map(own.flatMap(({ file, sql }) => namesOf(sql).map((name) => [name, file])));
  for (const { name } of own.flatMap(({ sql }) => dropsOf(sql))) created.delete(name);
  const found = await client.query<{ name: string }>(
    "SELECT relname AS name FROM pg_class WHERE relnamespace = to_regnamespace('public') AND relname = ANY ($1::text[])",
    [[...created.keys()]],
  );
  const there = new Set(found.rows.map(({ name }) => name));
  const indexes = await client.query<{ name: string }>(
    `SELECT format('%s on %s', i.indexrelid::regclass, i.indrelid::regclass) AS name
     FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
     WHERE ${OWN_SCHEMAS("c.relnamespace")} AND NOT (i.indisvalid AND i.indisready AND i.indislive) ORDER BY 1`,
  );
  const meant = new Set(migrations.flatMap(({ sql }) => notValidOf(sql)));
  const constraints = await client.query<{ name: string; place: string }>(
    `SELECT conname AS name, conrelid::regclass::text AS place FROM pg_constraint
     WHERE ${OWN_SCHEMAS("connamespace")} AND conrelid <> 0 AND NOT convalidated ORDER BY 1`,
  );
  const triggers = await client.query<{ name: string }>(
    `SELECT format('%s on %s', t.tgname, t.tgrelid::regclass) AS name
     FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
     WHERE ${OWN_SCHEMAS("c.relnamespace")} AND t.tgenabled = 'D' ORDER BY 1`,
  );
  return {
    parts,
    objects: there.size,
    missing: [...created].flatMap(([name, file]) => (there.has(name) ? [] : [`${name} (${file})`])),
    invalidIndexes: indexes.rows.map(({ name }) => name),
    unvalidated: constraints.rows.flatMap(({ name, place }) =>
      meant.has(name) ? [] : [`${name} on ${place}`],
    ),
    disabledTriggers: triggers.rows.map(({ name }) => name),
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
