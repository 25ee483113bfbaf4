import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { setTimeout as wait } from "node:timers/promises";
import { onTestFinished } from "vitest";
import { createMigrator, type MigratorOptions } from "../../src/database/migrator.ts";
import { inSession, sql } from "./postgres-server.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

/** The directory of the shipped files. */
export const SHIPPED = fileURLToPath(new URL("../../migrations", import.meta.url));

/** The shipped files without the down files, lowest number first. */
export const SHIPPED_FILES: readonly string[] = readdirSync(SHIPPED)
  .filter((name) => /^\d{3}_\w+\.sql$/.test(name))
  .sort();

/** Their numbers. */
export const SHIPPED_VERSIONS: readonly number[] = SHIPPED_FILES.map((name) => Number(name.slice(0, 3)));

/** The numbers of our own files: upstream's last one is 020. */
export const OUR_VERSIONS: readonly number[] = SHIPPED_VERSIONS.filter((version) => version > 20);

/** A directory with the shipped files up to upstream's last number. It is removed after the test. */
export async function upstreamNumbers(): Promise<string> {
  const files = SHIPPED_FILES.filter((name) => Number(name.slice(0, 3)) <= 20);
  return migrationsDirectory(
    Object.fromEntries(files.map((name) => [name, readFileSync(join(SHIPPED, name), "utf8")])),
  );
}

/** Collects the lines that a run reports. */
export function listen(): { readonly lines: string[]; readonly report: (line: string) => void } {
  const lines: string[] = [];
  return { lines, report: (line) => void lines.push(line) };
}

/** A migrator for the shipped files, or for another directory. */
export function migratorOf(options: Partial<MigratorOptions> = {}): ReturnType<typeof createMigrator> {
  return createMigrator({ directory: SHIPPED, toolVersion: "0.0.0-test", ...options });
}

/** A migration that creates a table with that name, in one transaction. */
export function makesTable(table: string, before = ""): string {
  return `-- fula-node:transaction one
-- fula-node:parts
--   SELECT 'table ${table}' AS part, to_regclass('public.${table}') IS NOT NULL AS there
${before}
CREATE TABLE ${table} (id integer PRIMARY KEY);
`;
}

/** A migration that builds the unique index `slow_dedup` on `slow(id)` concurrently. */
export const BUILDS_INDEX = `-- fula-node:transaction none
-- fula-node:parts
--   SELECT 'index slow_dedup' AS part, EXISTS (
--     SELECT FROM pg_index WHERE indexrelid = to_regclass('public.slow_dedup') AND indisvalid
--   ) AS there
-- fula-node:half-done
--   SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('public.slow_dedup') AND NOT indisvalid)
-- fula-node:clear DROP INDEX CONCURRENTLY IF EXISTS public.slow_dedup
CREATE UNIQUE INDEX CONCURRENTLY slow_dedup ON slow (id);
`;

/** A directory with these files. It is removed after the test. */
export async function migrationsDirectory(files: Readonly<Record<string, string>>): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "fula-node-migrations-"));
  onTestFinished(() => rm(directory, { recursive: true }));
  for (const [name, text] of Object.entries(files)) await writeFile(join(directory, name), text);
  return directory;
}

/** The ledger, as `18 applied applied` (version, origin, state). Empty if there is no ledger. */
export async function ledgerOf(target: PostgresTarget): Promise<readonly string[]> {
  const there = await sql(target, "SELECT FROM pg_class WHERE oid = to_regclass('fula_node.migrations')");
  if (there.length === 0) return [];
  const rows = await sql<{ line: string }>(
    target,
    "SELECT concat_ws(' ', version, origin, state) AS line FROM fula_node.migrations ORDER BY version",
  );
  return rows.map(({ line }) => line);
}

/** Runs each file's statements as psql would, without any ledger. */
export async function runPlainly(target: PostgresTarget, statements: readonly string[]): Promise<void> {
  await inSession(target, async (client) => {
    for (const statement of statements) await client.query(statement);
  });
}

/** Polls until the answer is true. Throws with `what` after the timeout. */
export async function until(what: string, ask: () => Promise<boolean>, withinMs = 20_000): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (!(await ask())) {
    if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms: ${what}`);
    await wait(25);
  }
}

/** Everything in the schema public and in the ledger's schema, a line each, in a fixed order. */
export async function catalogueOf(target: PostgresTarget, schema = "public"): Promise<readonly string[]> {
  const rows = await sql<{ line: string }>(target, CATALOGUE, [schema]);
  return rows.map(({ line }) => line).sort();
}

const CATALOGUE = `
  WITH tables AS (
    SELECT c.oid, c.relname FROM pg_class c WHERE c.relnamespace = to_regnamespace($1) AND c.relkind IN ('r', 'p')
  )
  SELECT format('%s.%s #%s %s%s%s', t.relname, a.attname,
    row_number() OVER (PARTITION BY t.oid ORDER BY a.attnum), format_type(a.atttypid, a.atttypmod),
    CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END, coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')) AS line
  FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  UNION ALL
  SELECT format('%s: %s %s', t.relname, k.conname, pg_get_constraintdef(k.oid))
  FROM tables t JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype <> 'n'
  UNION ALL
  SELECT format('%s: %s%s', t.relname, pg_get_indexdef(i.indexrelid), CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END)
  FROM tables t JOIN pg_index i ON i.indrelid = t.oid
  UNION ALL
  SELECT format('%s: %s', t.relname, pg_get_triggerdef(g.oid))
  FROM tables t JOIN pg_trigger g ON g.tgrelid = t.oid AND NOT g.tgisinternal
  UNION ALL
  SELECT format('function %s', p.proname) FROM pg_proc p WHERE p.pronamespace = to_regnamespace($1)`;
