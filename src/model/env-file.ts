/**
 * The `.env` file, read so that dotenv and `docker compose` agree on every value, and edited so that
 * comments, order and keys of others survive byte for byte. Where the two programs would read a value
 * differently (`$` outside single quotes, `#` glued to a word), the value is `unclear`, never guessed.
 */

/** One assignment of the file. */
export interface EnvEntry {
  readonly key: string;
  /** Offsets of the whole assignment in the text, without its line end. */
  readonly start: number;
  readonly end: number;
  /** 1-based. */
  readonly line: number;
  /** The value, or why it can't be told for sure. */
  readonly value: { readonly text: string } | { readonly unclear: string };
}

/** A parsed file, or the line at which it stops making sense. */
export type EnvFile =
  | { readonly ok: true; readonly text: string; readonly entries: readonly EnvEntry[] }
  | { readonly ok: false; readonly line: number; readonly what: string };

const ASSIGNMENT = /[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*/y;
const BLANK_OR_COMMENT = /[ \t]*(?:#[^\n]*)?\r?(?:\n|$)/y;
const REST_OF_LINE = /[^\n]*/y;
const AFTER_QUOTE = /[ \t]*(?:#[^\n]*)?\r?(?=\n|$)/y;

/** Reads the text of a `.env` file. */
export function parseEnvFile(text: string): EnvFile {
  if (text.includes("\0")) return { ok: false, line: 1, what: "it holds NUL bytes, so it is no text file" };
  const entries: EnvEntry[] = [];
  let at = text.startsWith("\uFEFF") ? 1 : 0;
  while (at < text.length) {
    const line = lineOf(text, at);
    const blank = match(BLANK_OR_COMMENT, text, at);
    if (blank !== null && blank[0].length > 0) {
      at += blank[0].length;
      continue;
    }
    const head = match(ASSIGNMENT, text, at);
    if (head === null) return { ok: false, line, what: "it is neither KEY=value, nor a comment, nor blank" };
    const read = readValue(text, at + head[0].length);
    if (read === null)
      return {
        ok: false,
        line,
        what: `the quote that opens the value of ${head[1]} is never closed, or text follows it`,
      };
    entries.push({ key: head[1] ?? "", start: at, end: read.end, line, value: read.value });
    at = read.end;
    if (text[at] === "\r") at += 1;
    if (text[at] === "\n") at += 1;
  }
  return { ok: true, text, entries };
}

/** The assignment that counts for a key: both programs take the last one. */
export function findEntry(file: EnvFile & { ok: true }, key: string): EnvEntry | undefined {
  return file.entries.findLast((entry) => entry.key === key);
}

/**
 * The text with these keys set: a key that is there is changed in its place, a new one goes to the end.
 * Every other byte stays. Throws RangeError for a value that quoteValue can't write.
 */
export function setValues(file: EnvFile & { ok: true }, values: ReadonlyMap<string, string>): string {
  let { text } = file;
  const edits = [...values].flatMap(([key, value]) => {
    const entry = findEntry(file, key);
    return entry === undefined ? [] : [{ entry, line: assignment(key, value) }];
  });
  for (const { entry, line } of edits.sort((a, b) => b.entry.start - a.entry.start)) {
    text = text.slice(0, entry.start) + line + text.slice(entry.end);
  }
  const added = [...values].filter(([key]) => findEntry(file, key) === undefined);
  if (added.length === 0) return text;
  const gap = text === "" || text.endsWith("\n") ? "" : "\n";
  return text + gap + added.map(([key, value]) => `${assignment(key, value)}\n`).join("");
}

/** How a value is written so that both programs read it back unchanged; null where no way exists. */
export function quoteValue(value: string): string | null {
  if (/[\n\r\0]/.test(value)) return null;
  if (/^[A-Za-z0-9_./:@,+=%~-]*$/.test(value)) return value;
  const oddBackslashesAtEnd = (/\\*$/.exec(value)?.[0].length ?? 0) % 2 === 1;
  if (!value.includes("'") && !oddBackslashesAtEnd) return `'${value}'`;
  if (!/["\\$`]/.test(value)) return `"${value}"`;
  if (!/[#$]|^['"`]|^\s|\s$/.test(value)) return value;
  return null;
}

function assignment(key: string, value: string): string {
  const quoted = quoteValue(value);
  if (quoted === null) throw new RangeError(`the value of ${key} can't be written to a .env file`);
  return `${key}=${quoted}`;
}

function readValue(text: string, from: number): Pick<EnvEntry, "end" | "value"> | null {
  const quote = text[from];
  if (quote === "'" || quote === '"') return readQuoted(text, from, quote);
  const raw = match(REST_OF_LINE, text, from)?.[0].replace(/\r$/, "") ?? "";
  const bare = raw.replace(/(^|[ \t]+)#.*$/, "").trimEnd();
  const end = from + raw.trimEnd().length;
  if (quote === "`")
    return { end, value: { unclear: "backticks are quotes to some programs and plain text to others" } };
  if (bare.includes("#"))
    return { end, value: { unclear: "a # inside an unquoted value starts a comment in some programs only" } };
  if (bare.includes("$"))
    return { end, value: { unclear: "a $ outside single quotes is expanded by docker compose" } };
  return { end, value: { text: bare } };
}

function readQuoted(text: string, from: number, quote: "'" | '"'): Pick<EnvEntry, "end" | "value"> | null {
  let at = from + 1;
  for (let escaped = false; at < text.length; at += 1) {
    if (text[at] === quote && !escaped) break;
    escaped = text[at] === "\\" && !escaped;
  }
  const after = at < text.length ? match(AFTER_QUOTE, text, at + 1) : null;
  if (after === null) return null;
  const inner = text.slice(from + 1, at);
  const end = at + 1 + after[0].replace(/\r$/, "").length;
  if (inner.includes("\n")) return { end, value: { unclear: "it spans several lines" } };
  if (quote === "'" && inner.includes("\\'"))
    return {
      end,
      value: { unclear: "a \\' inside single quotes is read differently by different programs" },
    };
  if (quote === '"' && /[\\$]/.test(inner))
    return {
      end,
      value: { unclear: "a $ or \\ inside double quotes is read differently by different programs" },
    };
  return { end, value: { text: inner } };
}

function match(pattern: RegExp, text: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

function lineOf(text: string, at: number): number {
  return text.slice(0, at).split("\n").length;
}
