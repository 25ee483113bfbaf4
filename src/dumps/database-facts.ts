/**
 * What is compared of two databases: of their objects the names and what can be said of them in words that a dump and a restore do
 * not change, and of each table its number of rows and a checksum.
 */

/** One object. */
export interface ObjectFact {
  /** `table`, `column`, `constraint`, `index`, `trigger`, `function`, `view`, `type`. */
  readonly kind: string;
  /** With its schema, and its table if it has one. */
  readonly name: string;
  readonly state: string;
}

/** The rows of one table. */
export interface RowsFact {
  /** As it is written in SQL: `public.pins`. */
  readonly table: string;
  readonly rows: string;
  readonly checksum: string;
}

/** Where a sequence stands. */
export interface SequenceFact {
  readonly sequence: string;
  /** The number that it last gave; the one before its first if it gave none. */
  readonly last: string;
  readonly step: string;
}

/** Everything that is compared. */
export interface DatabaseFacts {
  readonly objects: readonly ObjectFact[];
  readonly rows: readonly RowsFact[];
  readonly sequences: readonly SequenceFact[];
}

/** One thing that is not the same. */
export interface Difference {
  /** The table, or the object: `public.pins`. */
  readonly what: string;
  /** `has 9 rows, and the restored copy 8`. */
  readonly how: string;
  /** An index that is INVALID in the database itself, as SQL names it: no dump has it, and its restore is right without it. */
  readonly live?: string;
}

/** Both sessions print values alike: the checksum is of what they print. */
const SETTINGS: Readonly<Record<string, string>> = {
  TimeZone: "UTC",
  DateStyle: "ISO, YMD",
  IntervalStyle: "postgres",
  extra_float_digits: "3",
  bytea_output: "hex",
  lc_monetary: "C",
  xmloption: "content",
  // Names of tables and functions in values, with their schema.
  search_path: "",
  // A policy that hides rows is an error, as for pg_dump.
  row_security: "off",
  max_parallel_workers_per_gather: "0",
  jit: "off",
};

/** A statement that sets a session, until its transaction ends if it is in one. */
export function settingsSql(isLocal: boolean): string {
  const each = Object.entries(SETTINGS).map(
    ([name, value]) => `set_config('${name}', '${value}', ${isLocal})`,
  );
  return `SELECT ${each.join(", ")}`;
}

/** Schemas of users. */
const OURS = "n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'";

/** What an extension has made comes with CREATE EXTENSION, and is not in a dump. */
function notOfExtension(catalogue: string, oid: string): string {
  return `NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '${catalogue}'::regclass AND e.objid = ${oid} AND e.deptype = 'e')`;
}

const TABLE = "format('%I.%I', n.nspname, c.relname)";

/**
 * The expressions of checks, defaults, views and partial indexes are not compared: PostgreSQL writes some of them differently once
 * they were dumped and read again.
 */
export const OBJECTS_SQL = `
SELECT 'schema' AS kind, n.nspname::text AS name, '' AS state
FROM pg_namespace n WHERE ${OURS} AND ${notOfExtension("pg_namespace", "n.oid")}
UNION ALL
SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
         WHEN 'f' THEN 'foreign table' ELSE 'table' END,
  ${TABLE},
  concat_ws(' ', CASE c.relkind WHEN 'p' THEN 'partitioned' END, CASE WHEN c.relispartition THEN 'partition' END,
    CASE c.relpersistence WHEN 'u' THEN 'unlogged' END, CASE WHEN c.relrowsecurity THEN 'with policies' END)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't'
  AND ${OURS} AND ${notOfExtension("pg_class", "c.oid")}
UNION ALL
SELECT 'column', ${TABLE} || '.' || quote_ident(a.attname),
  concat_ws(' ', format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' END,
    CASE WHEN a.atthasdef THEN 'default' END, nullif(a.attidentity::text, ''), nullif(a.attgenerated::text, ''))
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't' AND a.attnum > 0 AND NOT a.attisdropped
  AND ${OURS} AND ${notOfExtension("pg_class", "c.oid")}
UNION ALL
SELECT 'constraint', ${TABLE} || ' ' || quote_ident(k.conname),
  concat_ws(' ', CASE WHEN k.contype = 'c' THEN 'check' ELSE pg_get_constraintdef(k.oid) END,
    CASE WHEN k.convalidated THEN 'valid' ELSE 'not valid' END)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE ${OURS} AND ${notOfExtension("pg_class", "c.oid")}
UNION ALL
SELECT 'index', ${TABLE} || ' ' || quote_ident(i.relname),
  concat_ws(' ', am.amname, CASE WHEN x.indisunique THEN 'unique' END, CASE WHEN x.indisprimary THEN 'primary' END,
    '(' || (SELECT string_agg(coalesce(quote_ident(a.attname), 'expression'), ', ' ORDER BY key.at)
            FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS key (attnum, at)
            LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = key.attnum AND key.attnum <> 0) || ')',
    CASE WHEN x.indpred IS NOT NULL THEN 'partial' END,
    CASE WHEN x.indisvalid AND x.indisready THEN 'valid' ELSE 'INVALID' END)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am am ON am.oid = i.relam
JOIN pg_class c ON c.oid = x.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' AND ${OURS} AND ${notOfExtension("pg_class", "c.oid")}
UNION ALL
SELECT 'trigger', ${TABLE} || ' ' || quote_ident(t.tgname), t.tgfoid::regproc::text || ' ' || t.tgenabled::text
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND ${OURS} AND ${notOfExtension("pg_class", "c.oid")}
UNION ALL
SELECT 'function', p.oid::regprocedure::text, md5(p.prosrc)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE ${OURS} AND ${notOfExtension("pg_proc", "p.oid")}
UNION ALL
SELECT 'type', format('%I.%I', n.nspname, t.typname),
  (SELECT string_agg(quote_literal(l.enumlabel), ', ' ORDER BY l.enumsortorder) FROM pg_enum l WHERE l.enumtypid = t.oid)
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype = 'e' AND ${OURS} AND ${notOfExtension("pg_type", "t.oid")}
UNION ALL
SELECT 'extension', extname::text, '' FROM pg_extension
UNION ALL
SELECT 'large objects', 'all', count(*)::text FROM pg_largeobject_metadata`;

/** The tables with rows of their own: not views, and of a partitioned table its partitions. */
export const TABLES_SQL = `
SELECT ${TABLE} AS table
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND ${OURS} AND ${notOfExtension("pg_class", "c.oid")}
ORDER BY 1`;

/** The roles that a dump may name: it has the rules and mappings of a role, and not the role itself. */
export const ROLES_SQL = `
SELECT rolname AS role FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%' ORDER BY 1`;

/** Where each sequence stands. It is outside of any snapshot: sequences never go back. */
export const SEQUENCES_SQL = `
SELECT format('%I.%I', schemaname, sequencename) AS sequence, coalesce(last_value, start_value::numeric - increment_by)::text AS last,
  increment_by::text AS step
FROM pg_sequences ORDER BY 1`;

/**
 * The number of rows and their checksum: the sums of two hashes of each row's text. A sum does not depend on the order, counts a row
 * that is there twice twice, and needs no memory. `table` is already quoted.
 */
export function rowsSql(table: string): string {
  const name = `'${table.replaceAll("'", "''")}'`;
  const sum = (seed: number) => `coalesce(sum(hashtextextended(line, ${seed})), 0)::text`;
  // OFFSET 0: the text of a row is made once, and not once for each hash.
  const lines = `SELECT ROW(t.*)::text COLLATE "C" AS line FROM ONLY ${table} AS t OFFSET 0`;
  return `SELECT ${name} AS table, count(*)::text AS rows, ${sum(0)} || ' ' || ${sum(1)} AS checksum FROM (${lines}) AS rows`;
}

/** What is not the same. `later`: where the sequences stood after the dump; a number between the two is right. */
export function compareDatabases(
  source: DatabaseFacts,
  copy: DatabaseFacts,
  later: readonly SequenceFact[],
): readonly Difference[] {
  return [
    ...compareObjects(source.objects, copy.objects),
    ...compareRows(source.rows, copy.rows),
    ...compareSequences(source.sequences, copy.sequences, later),
  ];
}

function compareObjects(source: readonly ObjectFact[], copy: readonly ObjectFact[]): readonly Difference[] {
  const keyOf = ({ kind, name }: ObjectFact) => `${kind} ${name}`;
  const copies = new Map(copy.map((one) => [keyOf(one), one.state]));
  const sources = new Set(source.map(keyOf));
  // A table that is missing is said once, and not again for each of its columns.
  const gone = source
    .filter((one) => one.kind === "table" && !copies.has(keyOf(one)))
    .map(({ name }) => name);
  const isOfGone = ({ kind, name }: ObjectFact) =>
    kind !== "table" && gone.some((table) => name.startsWith(`${table}.`) || name.startsWith(`${table} `));
  return [
    ...source.flatMap((one): Difference[] => {
      const state = copies.get(keyOf(one));
      if (one.kind === "index" && one.state.endsWith(" INVALID"))
        return [{ what: keyOf(one), how: "is INVALID in the database itself", live: indexOf(one.name) }];
      if (state === one.state || isOfGone(one)) return [];
      const how =
        state === undefined
          ? "is missing in the restored copy"
          : `is "${one.state}", and in the restored copy "${state}"`;
      return [{ what: keyOf(one), how }];
    }),
    ...copy
      .filter((one) => !sources.has(keyOf(one)))
      .map((one) => ({ what: keyOf(one), how: "is in the restored copy only" })),
  ];
}

/** `public.idx` of `public.table idx`: an index is in the schema of its table. */
function indexOf(name: string): string {
  const [, schema, index] = /^("(?:[^"]|"")*"|[^".]+)\.(?:"(?:[^"]|"")*"|[^" ]+) (.+)$/s.exec(name) ?? [];
  return schema === undefined ? name : `${schema}.${index}`;
}

function compareRows(source: readonly RowsFact[], copy: readonly RowsFact[]): readonly Difference[] {
  const copies = new Map(copy.map((one) => [one.table, one]));
  return source.flatMap(({ table, rows, checksum }): Difference[] => {
    const other = copies.get(table);
    // Said as an object that is missing.
    if (other === undefined) return [];
    const what = `table ${table}`;
    if (other.rows !== rows) return [{ what, how: `has ${rows} rows, and the restored copy ${other.rows}` }];
    return other.checksum === checksum
      ? []
      : [{ what, how: `has other rows in the restored copy (of ${rows})` }];
  });
}

function compareSequences(
  source: readonly SequenceFact[],
  copy: readonly SequenceFact[],
  later: readonly SequenceFact[],
): readonly Difference[] {
  const lastOf = (facts: readonly SequenceFact[]) =>
    new Map(facts.map(({ sequence, last }) => [sequence, BigInt(last)] as const));
  const [copies, laters] = [lastOf(copy), lastOf(later)];
  return source.flatMap(({ sequence, last, step }): Difference[] => {
    const restored = copies.get(sequence);
    const [from, to] = [BigInt(last), laters.get(sequence) ?? BigInt(last)];
    if (restored === undefined) return [];
    const isRight =
      BigInt(step) > 0n ? restored >= from && restored <= to : restored <= from && restored >= to;
    return isRight
      ? []
      : [{ what: `sequence ${sequence}`, how: `stands at ${last}, and in the restored copy at ${restored}` }];
  });
}
