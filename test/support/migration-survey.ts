import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { catalogueOf, listen, migrationsDirectory, migratorOf } from "./migrations.ts";
import { sql } from "./postgres-server.ts";

/** A key: primary, unique, of an exclusion, or to another table. */
export interface TableKey {
  /** `public.node_names`. */
  readonly table: string;
  readonly name: string;
  /** In the order of the key. Empty: an expression. */
  readonly columns: readonly string[];
  /** True if the first column can't be null. */
  readonly isFilled: boolean;
}

/** A table, and what PostgreSQL says of its keys. */
export interface SurveyedTable {
  readonly table: string;
  readonly hasPrimaryKey: boolean;
}

/** What one migration file changes, from PostgreSQL's own catalogue. */
export interface Surveyed {
  readonly file: string;
  readonly version: number;
  readonly hasDown: boolean;
  /** The tables that it creates. */
  readonly tables: readonly SurveyedTable[];
  /** The keys that it creates, of its own tables or of others. */
  readonly keys: readonly TableKey[];
  /** What is in the catalogue after its down file that was not there before its up file, and the other way round. */
  readonly left: readonly string[];
}

/** Runs each file of a directory in order on an empty database, then each down file in reverse order, and compares. */
export async function surveyMigrations(
  target: PostgresTarget,
  directory: string,
): Promise<readonly Surveyed[]> {
  const names = readdirSync(directory).filter((name) => name.endsWith(".sql"));
  const ups = names.filter((name) => !name.endsWith(".down.sql")).toSorted();
  const surveyed: (Omit<Surveyed, "left"> & { readonly before: readonly string[] })[] = [];
  let before = await lookAround(target);
  for (const [index, file] of ups.entries()) {
    const upToHere = new Set(ups.slice(0, index + 1));
    const texts = names
      .filter((name) => upToHere.has(name.replace(".down.sql", ".sql")))
      .map((name) => [name, readFileSync(join(directory, name), "utf8")] as const);
    const part = await migrationsDirectory(Object.fromEntries(texts));
    await migratorOf({ directory: part }).up(target, listen());
    const after = await lookAround(target);
    surveyed.push({
      file,
      version: Number(file.slice(0, 3)),
      hasDown: names.includes(file.replace(".sql", ".down.sql")),
      tables: newIn(before.tables, after.tables),
      keys: newIn(before.keys, after.keys),
      before: before.catalogue,
    });
    before = after;
  }
  const left = new Map<number, readonly string[]>();
  for (const { version, hasDown, before: catalogue } of surveyed.toReversed()) {
    if (!hasDown) break;
    await migratorOf({ directory }).down(target, [version], listen());
    const after = await lookAround(target);
    left.set(version, [
      ...newIn(catalogue, after.catalogue).map((line) => `stays: ${line}`),
      ...newIn(after.catalogue, catalogue).map((line) => `lost: ${line}`),
    ]);
  }
  return surveyed.map((one) => ({ ...one, left: left.get(one.version) ?? [] }));
}

async function lookAround(target: PostgresTarget) {
  return {
    tables: await sql<{ table: string; hasPrimaryKey: boolean }>(target, TABLES),
    keys: await sql<{ table: string; name: string; columns: string[]; isFilled: boolean }>(target, KEYS),
    catalogue: await catalogueOf(target),
  };
}

function newIn<Thing>(before: readonly Thing[], after: readonly Thing[]): readonly Thing[] {
  const known = new Set(before.map((thing) => JSON.stringify(thing)));
  return after.filter((thing) => !known.has(JSON.stringify(thing)));
}

/** In every schema of the database, without the ledger, which the migrator makes for itself. */
const OF_FILES = `
  n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND c.relkind IN ('r', 'p')
  AND (n.nspname, c.relname) NOT IN (('fula_node', 'migrations'), ('fula_node', 'flags_in_use'))`;

const TABLES = `
  SELECT format('%s.%s', n.nspname, c.relname) AS "table",
    EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS "hasPrimaryKey"
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE ${OF_FILES} ORDER BY 1`;

const KEYS = `
  WITH keys (tbl, name, numbers) AS (
    SELECT indrelid, indexrelid::regclass::text, indkey::int2[] FROM pg_index WHERE indisunique OR indisexclusion
    UNION ALL
    SELECT conrelid, conname, conkey FROM pg_constraint WHERE contype = 'f'
  )
  SELECT format('%s.%s', n.nspname, c.relname) AS "table", k.name,
    ARRAY(SELECT coalesce(a.attname, '')::text FROM unnest(k.numbers) WITH ORDINALITY AS u (number, place)
          LEFT JOIN pg_attribute a ON a.attrelid = k.tbl AND a.attnum = u.number AND u.number > 0 ORDER BY place) AS columns,
    coalesce((SELECT a.attnotnull FROM pg_attribute a
      WHERE a.attrelid = k.tbl AND a.attnum = k.numbers[array_lower(k.numbers, 1)] AND a.attnum > 0), false) AS "isFilled"
  FROM keys k JOIN pg_class c ON c.oid = k.tbl JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE ${OF_FILES} ORDER BY 1, 2`;
