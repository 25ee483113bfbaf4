import type { PostgresPool } from "./postgres.ts";

/** One thing of a schema, by its definition. Identifiers are quoted as in SQL. */
export interface Definition extends Record<string, unknown> {
  readonly kind:
    | "table"
    | "column"
    | "default"
    | "not null"
    | "constraint"
    | "index"
    | "trigger"
    | "function";
  /** `pins.status`, `pins_status_check on pins`. */
  readonly name: string;
  /** The table that it belongs to, as `name` of a table; null for a table and a function. */
  readonly parent: string | null;
  readonly state: string;
  /** The statement that makes it; null if that is more than one, or is in a file only. */
  readonly make: string | null;
  /** The statement that makes it anew where there is another one; null as `make`. */
  readonly remake: string | null;
  /** True if `state` is an expression, which PostgreSQL may write differently once it was dumped and restored. */
  readonly rewritten: boolean;
}

/** A definition that the database has not. */
export interface SchemaDifference extends Pick<Definition, "kind" | "name" | "make" | "remake"> {
  /** How it is there; null if it is not there at all. */
  readonly found: string | null;
  readonly expected: string;
}

/** What a database lacks of what the migrations make, and what it has beside that. */
export interface SchemaComparison {
  readonly compared: number;
  readonly differences: readonly SchemaDifference[];
  /** `index theirs on pins`. Not the parts of a table that is itself named. */
  readonly additional: readonly string[];
}

type Query = PostgresPool["query"];

/** Reads the schemas public and fula_node. Reads the catalogue only. */
export async function readDefinitions(query: Query): Promise<readonly Definition[]> {
  // Names are written as they are needed in psql; both sides must write them alike.
  await query("SELECT set_config('search_path', 'public', false)");
  return query<Definition & Record<string, unknown>>(DEFINITIONS);
}

const keyOf = ({ kind, name }: Pick<Definition, "kind" | "name">): string => `${kind} ${name}`;

/**
 * Compares a database with what the migrations make. `forms`: the same, as a dump and a restore may have written it. More than
 * that is allowed.
 */
export function compareDefinitions(
  made: readonly Definition[],
  real: readonly Definition[],
  forms: readonly (readonly Definition[])[] = [],
): SchemaComparison {
  const there = new Map(real.map((one) => [keyOf(one), one]));
  const others = forms.map((form) => new Map(form.map((one) => [keyOf(one), one.state])));
  const tables = new Set(made.filter(({ kind }) => kind === "table").map(({ name }) => name));
  const has = (kind: Definition["kind"], name: string | null) =>
    name === null || there.has(`${kind} ${name}`);
  const differences = made.flatMap((one): SchemaDifference[] => {
    const found = there.get(keyOf(one))?.state ?? null;
    if (found === one.state) return [];
    if (found !== null && others.some((form) => form.get(keyOf(one)) === found)) return [];
    // Said once, as a table or a column that is gone.
    if (!has("table", one.parent)) return [];
    if ((one.kind === "default" || one.kind === "not null") && !has("column", one.name)) return [];
    const { kind, name, make, remake } = one;
    return [{ kind, name, make, remake, found, expected: one.state }];
  });
  const known = new Set(made.map(keyOf));
  const additional = real
    .filter((one) => !known.has(keyOf(one)) && (one.parent === null || tables.has(one.parent)))
    .map(keyOf);
  return { compared: made.length, differences, additional };
}

/** A restore reads what a dump wrote; after the second one, PostgreSQL writes the same again. */
const RESTORES = 2;

/**
 * Compares a database with a scratch database that has the migrations alone. An expression that differs is made anew in the
 * scratch database from its own text, as a restore does.
 */
export async function compareWithScratch(
  real: readonly Definition[],
  scratch: Query,
): Promise<SchemaComparison> {
  const made = await readDefinitions(scratch);
  const byKey = new Map(made.map((one) => [keyOf(one), one]));
  const forms: (readonly Definition[])[] = [];
  for (;;) {
    const comparison = compareDefinitions(made, real, forms);
    const open = comparison.differences.filter(
      (one) => one.found !== null && byKey.get(keyOf(one))?.rewritten === true,
    );
    if (open.length === 0 || forms.length === RESTORES) return comparison;
    const latest = new Map((forms.at(-1) ?? made).map((one) => [keyOf(one), one]));
    for (const one of open) {
      const { remake } = latest.get(keyOf(one)) ?? one;
      if (remake !== null) await scratch(remake.replaceAll(" CONCURRENTLY", ""));
    }
    forms.push(await readDefinitions(scratch));
  }
}

const IN_OURS = (column: string): string =>
  `${column} IN (to_regnamespace('public'), to_regnamespace('fula_node'))`;

/** What an extension has made is not the migrations' and not the operator's. */
const NOT_OF_EXTENSION = (catalogue: string, oid: string): string =>
  `NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '${catalogue}'::regclass AND e.objid = ${oid} AND e.deptype = 'e')`;

/**
 * Of a sequence only that it is there: its limits may be changed (docs/billing.md#row-numbers). Whether a constraint is validated and
 * an index is valid is looked at elsewhere. A name is longest first in `remake`: a constraint is dropped and added in one statement.
 */
const DEFINITIONS = `
WITH relations AS (
  SELECT c.oid, c.oid::regclass::text AS name, c.relkind FROM pg_class c
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND ${IN_OURS("c.relnamespace")} AND ${NOT_OF_EXTENSION("pg_class", "c.oid")}
), tables AS (SELECT * FROM relations WHERE relkind IN ('r', 'p')),
columns AS (
  SELECT t.oid, t.name AS parent, format('%s.%I', t.name, a.attname) AS name, quote_ident(a.attname) AS short, a.attnotnull, a.attgenerated,
    concat_ws(' ', format_type(a.atttypid, a.atttypmod), CASE a.attidentity WHEN 'a' THEN 'GENERATED ALWAYS AS IDENTITY'
      WHEN 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY' END, CASE WHEN a.attgenerated <> '' THEN 'GENERATED' END) AS type,
    pg_get_expr(d.adbin, d.adrelid) AS expression
  FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
)
SELECT 'table' AS kind, name, NULL AS parent,
  CASE relkind WHEN 'v' THEN 'view ' || pg_get_viewdef(oid) WHEN 'm' THEN 'materialized view ' || pg_get_viewdef(oid)
    WHEN 'S' THEN 'sequence' ELSE 'table' END AS state,
  NULL AS make, CASE relkind WHEN 'v' THEN format('CREATE OR REPLACE VIEW %s AS %s', name, pg_get_viewdef(oid)) END AS remake,
  relkind = 'v' AS rewritten
FROM relations
UNION ALL
SELECT 'column', name, parent, type, NULL, NULL, false FROM columns
UNION ALL
SELECT 'default', name, parent, expression, statement, CASE WHEN attgenerated = '' THEN statement END, attgenerated = ''
FROM columns, LATERAL (SELECT CASE WHEN attgenerated = ''
  THEN format('ALTER TABLE %s ALTER COLUMN %s SET DEFAULT %s', parent, short, expression) END AS statement) AS s
WHERE expression IS NOT NULL
UNION ALL
SELECT 'not null', name, parent, 'not null', statement, statement, false
FROM columns, LATERAL (SELECT format('ALTER TABLE %s ALTER COLUMN %s SET NOT NULL', parent, short) AS statement) AS s
WHERE attnotnull
UNION ALL
SELECT 'constraint', format('%I on %s', k.conname, t.name), t.name, d.definition,
  format('ALTER TABLE %s ADD CONSTRAINT %I %s', t.name, k.conname, d.definition),
  format('ALTER TABLE %s DROP CONSTRAINT %I, ADD CONSTRAINT %I %s', t.name, k.conname, k.conname, d.definition), k.contype = 'c'
FROM tables t JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype IN ('c', 'f', 'p', 'u', 'x'),
  LATERAL (SELECT regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', '') AS definition) AS d
UNION ALL
SELECT 'index', format('%s on %s', i.indexrelid::regclass, t.name), t.name, d.definition, d.definition,
  format('DROP INDEX CONCURRENTLY %s; %s', i.indexrelid::regclass, d.definition), i.indexprs IS NOT NULL OR i.indpred IS NOT NULL
FROM relations t JOIN pg_index i ON i.indrelid = t.oid,
  LATERAL (SELECT regexp_replace(regexp_replace(pg_get_indexdef(i.indexrelid), ' WITH \\([^)]*\\)', ''), ' INDEX ', ' INDEX CONCURRENTLY ')
    AS definition) AS d
WHERE NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
UNION ALL
SELECT 'trigger', format('%I on %s', g.tgname, t.name), t.name,
  concat_ws(' ', pg_get_triggerdef(g.oid), CASE g.tgenabled WHEN 'R' THEN '(for replicas only)' END), pg_get_triggerdef(g.oid),
  format('DROP TRIGGER %I ON %s; %s', g.tgname, t.name, pg_get_triggerdef(g.oid)), g.tgqual IS NOT NULL
FROM relations t JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
UNION ALL
SELECT 'function', p.oid::regprocedure::text, NULL, pg_get_functiondef(p.oid), NULL, NULL, false
FROM pg_proc p WHERE p.prokind IN ('f', 'p') AND ${IN_OURS("p.pronamespace")} AND ${NOT_OF_EXTENSION("pg_proc", "p.oid")}
ORDER BY 1, 2`;
