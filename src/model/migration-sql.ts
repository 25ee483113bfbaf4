/** One statement of an SQL file, and where in the file it begins. */
export interface Statement {
  /** From its first word to the character before the semicolon. */
  readonly text: string;
  /** Index of `text` in the file, in UTF-16 units. */
  readonly offset: number;
}

/** A place in a file, for a person: lines and columns count from 1. */
export interface Place {
  readonly line: number;
  readonly column: number;
  /** The line itself. */
  readonly source: string;
}

/**
 * The statements of an SQL file, in order: split at semicolons outside of quotes, dollar quotes and comments
 * (PostgreSQL manual, 4.1 Lexical Structure). Comments around a statement are left out, those inside stay.
 * Knows no `BEGIN ATOMIC` function bodies and no psql commands.
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
 * The place of a character of a file. `position` is what PostgreSQL reports: it counts from 1, in characters
 * (not UTF-16 units), from `offset` on.
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

/** Characters that can begin no quote, comment or semicolon, taken in one go. */
const PLAIN = /[^\s;'"$\-/eE]+|\s+/y;

function endOfToken(sql: string, at: number): number {
  const two = sql.slice(at, at + 2);
  if (two === "--") return endAfter(sql, "\n", at);
  if (two === "/*") return endOfBlockComment(sql, at);
  if (two.startsWith('"')) return endAfter(sql, '"', at + 1);
  if (two.startsWith("'")) return endAfter(sql, "'", at + 1);
  if (/^[eE]'/.test(two) && !/[\w$]/.test(sql.charAt(at - 1))) return endOfEscapeString(sql, at + 2);
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
