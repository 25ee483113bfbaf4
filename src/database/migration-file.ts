import { OperatorError, type Problem } from "../errors.ts";

/** One file of the migrations directory. */
export interface MigrationFile {
  /** Without a directory: `018_deduction_idempotency.sql`. */
  readonly name: string;
  readonly text: string;
  /** Lower-case hex sha256 of the file. */
  readonly sha256: string;
}

/** For a migration that can't run in a transaction: how to detect a half-done run, and how to clean up after it. */
interface Recovery {
  /** SQL that yields one boolean: true if an earlier run was interrupted and left something behind. */
  readonly halfDone: string;
  /** One statement that removes it, so that the database is as before the migration. */
  readonly clear: string;
}

/** One numbered migration. Files are never edited once released: the ledger holds their sha256. */
export interface Migration {
  readonly version: number;
  /** `deduction_idempotency` */
  readonly name: string;
  readonly file: string;
  readonly sql: string;
  readonly sha256: string;
  /** SQL that yields rows (part text, there boolean), one for each part of the effect; runs on any database. */
  readonly parts: string;
  /** Null if the whole file runs in one transaction, together with its ledger row. */
  readonly recovery: Recovery | null;
  /** Null if it can't be reverted. A down file always runs in one transaction, with its ledger row. */
  readonly down: { readonly file: string; readonly sql: string } | null;
}

/** `1` as `001`. */
export function paddedVersion(version: number): string {
  return String(version).padStart(3, "0");
}

/**
 * Parses the migrations in a directory's `.sql` files, sorted by number; other files are ignored. Throws an OperatorError
 * that lists every problem: wrong names, numbers used twice, missing or unknown directives.
 *
 * Directives are comments: `-- fula-node:NAME value`, continued by comment lines indented by two more spaces.
 * `transaction one|none` and `parts SQL` are required; with `transaction none` also `half-done SQL` and `clear SQL`.
 */
export function parseMigrations(files: readonly MigrationFile[]): readonly Migration[] {
  const problems: Problem[] = [];
  const addProblem = (subject: string, what: string): void => void problems.push({ subject, what });
  const ups = new Map<number, Migration>();
  const downs = new Map<number, MigrationFile>();
  for (const file of files.filter(({ name }) => name.endsWith(".sql"))) {
    const named = /^(\d{3})_([a-z0-9_]+?)(\.down)?\.sql$/.exec(file.name);
    const version = Number(named?.[1] ?? 0);
    if (named === null || version === 0)
      addProblem(file.name, "is not named NNN_name.sql or NNN_name.down.sql");
    else if (named[3] !== undefined) {
      if (downs.has(version)) addProblem(file.name, `is a second down file for ${paddedVersion(version)}`);
      downs.set(version, file);
    } else {
      const other = ups.get(version);
      if (other !== undefined) addProblem(file.name, `has the same number as ${other.file}`);
      ups.set(version, parseUp(file, version, named[2] ?? "", addProblem));
    }
  }
  for (const [version, { name, text }] of downs) {
    const up = ups.get(version);
    if (up === undefined || name !== up.file.replace(/\.sql$/, ".down.sql")) {
      addProblem(name, "is a down file without its migration");
    } else {
      checkTransactionControl(name, text, addProblem);
      ups.set(version, { ...up, down: { file: name, sql: text } });
    }
  }
  if (ups.size === 0) addProblem("migrations", "contains no migration file");
  if (problems.length > 0) throw badFiles(problems);
  return [...ups.values()].sort((a, b) => a.version - b.version);
}

type AddProblem = (subject: string, what: string) => void;

const KNOWN = ["transaction", "parts", "half-done", "clear"];
const NEEDS_RECOVERY = ["half-done", "clear"] as const;

function parseUp(file: MigrationFile, version: number, name: string, addProblem: AddProblem): Migration {
  const directives = readDirectives(file, addProblem);
  const transaction = directives.get("transaction");
  if (transaction !== "one" && transaction !== "none") {
    addProblem(file.name, "must contain `-- fula-node:transaction one` or `-- fula-node:transaction none`");
  }
  if (!directives.has("parts")) addProblem(file.name, "lacks the directive fula-node:parts");
  for (const key of NEEDS_RECOVERY) {
    if (transaction === "none" && !directives.has(key))
      addProblem(file.name, `lacks the directive fula-node:${key}`);
    if (transaction === "one" && directives.has(key)) {
      addProblem(file.name, `has fula-node:${key}, which is only for files with fula-node:transaction none`);
    }
  }
  checkTransactionControl(file.name, file.text, addProblem);
  const recovery = { halfDone: directives.get("half-done") ?? "", clear: directives.get("clear") ?? "" };
  return {
    version,
    name,
    file: file.name,
    sql: file.text,
    sha256: file.sha256,
    parts: directives.get("parts") ?? "",
    recovery: transaction === "none" ? recovery : null,
    down: null,
  };
}

function readDirectives(file: MigrationFile, addProblem: AddProblem): ReadonlyMap<string, string> {
  const directives = new Map<string, string>();
  let current: string | null = null;
  for (const line of file.text.split("\n")) {
    const opened = /^-- fula-node:(\S+)[ \t]*(.*)$/.exec(line);
    const continued = /^-- {3}(.*)$/.exec(line);
    if (opened !== null) {
      current = opened[1] ?? "";
      if (!KNOWN.includes(current)) addProblem(file.name, `has the unknown directive fula-node:${current}`);
      if (directives.has(current)) addProblem(file.name, `has the directive fula-node:${current} twice`);
      directives.set(current, (opened[2] ?? "").trim());
    } else if (continued !== null && current !== null) {
      directives.set(current, `${directives.get(current) ?? ""}\n${continued[1] ?? ""}`.trim());
    } else current = null;
  }
  for (const [key, value] of directives) {
    if (value === "") addProblem(file.name, `has an empty directive fula-node:${key}`);
  }
  return directives;
}

const TRANSACTION_CONTROL = [
  "BEGIN",
  "START",
  "COMMIT",
  "END",
  "ROLLBACK",
  "ABORT",
  "SAVEPOINT",
  "RELEASE",
  "PREPARE",
];

/** Only the runner starts and ends transactions: a COMMIT in a file would separate the effect from its ledger row. */
function checkTransactionControl(name: string, sql: string, addProblem: AddProblem): void {
  const statements = splitStatements(sql);
  if (statements.length === 0) addProblem(name, "contains no statement");
  for (const keyword of new Set(statements.map(keywordOf))) {
    if (TRANSACTION_CONTROL.includes(keyword))
      addProblem(name, `contains ${keyword}, but only fula-node may control transactions`);
    if (keyword.startsWith("\\")) addProblem(name, `contains the psql command ${keyword.toLowerCase()}`);
  }
}

function badFiles(problems: readonly Problem[]): OperatorError {
  return new OperatorError({
    exit: "integrity",
    what: "The migration files of this installation are invalid.",
    why: problems.map(({ subject, what }) => `${subject} ${what}`).join("; "),
    remedy: "Install fula-node again. If you wrote these files, correct them.",
    problems,
  });
}

/** One statement of an SQL file, and its position in the file. */
export interface Statement {
  /** From its first word to the character before the semicolon. */
  readonly text: string;
  /** Index of `text` in the file, in UTF-16 units. */
  readonly offset: number;
}

const CREATES =
  /^CREATE\s+(?:UNIQUE\s+)?(?:TABLE|INDEX|VIEW|SEQUENCE)\s+(?:CONCURRENTLY\s+)?(?:IF\s+NOT\s+EXISTS\s+)?(?:public\.)?(\w+)/i;
const DROPS =
  /^DROP\s+(TABLE|INDEX|VIEW|SEQUENCE)\s+(?:CONCURRENTLY\s+)?(?:IF\s+EXISTS\s+)?([^;]+?)(?:\s+CASCADE|\s+RESTRICT)?$/i;

/** The tables, indexes, views and sequences that a file creates, by name without their schema. */
export function namesOf(sql: string): readonly string[] {
  return splitStatements(sql).flatMap(({ text }) => CREATES.exec(text)?.[1] ?? []);
}

/** What a down file drops: `table node_names`, `index idx_credit_history_hourly_dedup`. */
export function dropsOf(sql: string): readonly { readonly kind: string; readonly name: string }[] {
  return splitStatements(sql).flatMap(({ text }) => {
    const [, kind, names = ""] = DROPS.exec(text) ?? [];
    if (kind === undefined) return [];
    return names.split(",").map((name) => ({
      kind: kind.toLowerCase(),
      name: name.trim().replace(/^public\./i, ""),
    }));
  });
}

/**
 * The guards of a down file: the DO blocks before its first change. Each raises an exception if something in the database would be lost
 * or misread. They only read, and need nothing that another statement or down file does, so they can be asked before the run.
 */
export function guardsOf(sql: string): readonly Statement[] {
  const statements = splitStatements(sql);
  const change = statements.findIndex((statement) => !["LOCK", "DO"].includes(keywordOf(statement)));
  const head = change < 0 ? statements : statements.slice(0, change);
  return head.filter((statement) => keywordOf(statement) === "DO");
}

/** A place in a file, for a person: lines and columns count from 1. */
interface Place {
  readonly line: number;
  readonly column: number;
  /** The line itself. */
  readonly source: string;
}

/**
 * The statements of an SQL file, in order: split at semicolons outside of quotes, dollar quotes and comments
 * (PostgreSQL manual, 4.1 Lexical Structure). Comments around a statement are left out; those inside are kept.
 * It does not support `BEGIN ATOMIC` function bodies and psql commands.
 */
export function splitStatements(sql: string): readonly Statement[] {
  const statements: Statement[] = [];
  let start = -1;
  let end = -1;
  let at = 0;
  const finish = (): void => {
    if (start >= 0) statements.push({ text: sql.slice(start, end), offset: start });
    start = -1;
  };
  while (at < sql.length) {
    const next = endOfToken(sql, at);
    const token = kindOfToken(sql, at);
    if (token === "semicolon") finish();
    else if (token === "code") {
      if (start < 0) start = at;
      end = next;
    }
    at = next;
  }
  finish();
  return statements;
}

/** The first word of a statement in upper case: `CREATE`, `BEGIN`, `\C` for a psql command. */
export function keywordOf(statement: Statement): string {
  return (/^\\?[A-Za-z]+/.exec(statement.text)?.[0] ?? statement.text.slice(0, 1)).toUpperCase();
}

/**
 * The place of a character of a file. `position` is PostgreSQL's: it counts characters (not UTF-16 units)
 * from 1, starting at `offset`.
 */
export function placeOf(file: string, offset: number, position: number): Place {
  const reported = Array.from(file.slice(offset))
    .slice(0, position - 1)
    .join("").length;
  const at = Math.min(offset + reported, file.length);
  const before = file.slice(0, at).split("\n");
  const column = before.at(-1)?.length ?? 0;
  const source = file.split("\n")[before.length - 1] ?? "";
  return { line: before.length, column: column + 1, source };
}

/** The line of a place with a caret under the column, as compilers show it. */
export function caretExcerpt(place: Place): string {
  const margin = `${place.line} | `;
  const indent = place.source.slice(0, place.column - 1).replace(/[^\t]/g, " ");
  return `${margin}${place.source.trimEnd()}\n${" ".repeat(margin.length - 2)}| ${indent}^`;
}

function kindOfToken(sql: string, at: number): "space" | "semicolon" | "code" {
  const two = sql.slice(at, at + 2);
  if (two === "--" || two === "/*" || /\s/.test(two.charAt(0))) return "space";
  return two.startsWith(";") ? "semicolon" : "code";
}

/** Words that can't start a quote or comment and are not a semicolon, with the space between them; or space. Read in one step. */
const PLAIN = /(?:[^\s;'"$\-/]|-(?!-)|\/(?!\*))+(?:\s+(?:[^\s;'"$\-/]|-(?!-)|\/(?!\*))+)*|\s+/y;

function endOfToken(sql: string, at: number): number {
  const two = sql.slice(at, at + 2);
  if (two === "--") return endAfter(sql, "\n", at);
  if (two === "/*") return endOfBlockComment(sql, at);
  if (two.startsWith('"')) return endAfter(sql, '"', at + 1);
  if (two.startsWith("'")) {
    const isEscape = /^[eE]$/.test(sql.charAt(at - 1)) && !/[\w$]/.test(sql.charAt(at - 2));
    return isEscape ? endOfEscapeString(sql, at + 1) : endAfter(sql, "'", at + 1);
  }
  if (two.startsWith("$") && !/[\w$]/.test(sql.charAt(at - 1))) {
    const tag = /^\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$/.exec(sql.slice(at, at + 70))?.[0];
    if (tag !== undefined) return endAfter(sql, tag, at + tag.length);
  }
  PLAIN.lastIndex = at;
  return PLAIN.test(sql) ? PLAIN.lastIndex : at + 1;
}

function endAfter(sql: string, closing: string, from: number): number {
  const found = sql.indexOf(closing, from);
  return found < 0 ? sql.length : found + closing.length;
}

function endOfEscapeString(sql: string, from: number): number {
  for (let at = from; at < sql.length; at += 1) {
    if (sql[at] === "\\") at += 1;
    else if (sql[at] === "'") return at + 1;
  }
  return sql.length;
}

function endOfBlockComment(sql: string, from: number): number {
  let depth = 0;
  for (let at = from; at < sql.length; at += 2) {
    const two = sql.slice(at, at + 2);
    if (two === "/*") depth += 1;
    else if (two === "*/") depth -= 1;
    else at -= 1;
    if (depth === 0) return at + 2;
  }
  return sql.length;
}
