import { parse } from "dotenv";

/**
 * The `.env` file. dotenv reads the values. The code here finds the position of each value, and edits it so
 * that comments, order and unknown keys stay byte for byte. A value that `docker compose` would read
 * differently is `unclear`, and never guessed. If the two programs do not even agree on what the lines are,
 * the file is refused.
 */

/** A value on which dotenv and Compose agree, or why they disagree. */
type EnvValue = { readonly text: string } | { readonly unclear: string };

/** The assignment that counts for a key: both programs use the last one. */
export interface EnvEntry {
  readonly key: string;
  /** Offsets of the value with its quotes. An edit replaces exactly this range. */
  readonly start: number;
  readonly end: number;
  /** 1-based. */
  readonly line: number;
  readonly value: EnvValue;
}

/** The text to put between two offsets. */
interface Edit {
  readonly start: number;
  readonly end: number;
  readonly replacement: string;
}

/** A parsed file, or the first line that is not valid. */
export type EnvFile =
  | {
      readonly ok: true;
      readonly text: string;
      readonly entries: readonly EnvEntry[];
      /** Earlier assignments of a key that is assigned again. They do not count, but Compose must understand them, too. */
      readonly overridden: readonly EnvEntry[];
    }
  | { readonly ok: false; readonly line: number; readonly what: string };

const ASSIGNMENT = /[ \t]*(?:export[ \t]+)?(?!export[ \t]*=)([A-Za-z0-9_.-]+)[ \t]*=[ \t]*/y;
const BLANK_OR_COMMENT = /[ \t]*(?:#[^\n]*)?\r?(?:\n|$)/y;
/** Characters that only some programs read as the end of a line or of the text. */
const BROKEN_TEXT = /\0|\r(?!\n)|[\u2028\u2029]/;

/** Reads the text of a `.env` file, in time linear to its length. */
export function parseEnvFile(text: string): EnvFile {
  const broken = BROKEN_TEXT.exec(text);
  if (broken !== null) {
    const what =
      broken[0] === "\0"
        ? "it contains a NUL byte, so the file is not a text file"
        : "it contains a carriage return or a separator that only some programs read as the end of a line";
    return { ok: false, line: countLines(text, 0, broken.index) + 1, what };
  }
  const found = new Map<string, Omit<EnvEntry, "value"> & { readonly unclear: string | null }>();
  const overridden: EnvEntry[] = [];
  let line = 1;
  let at = text.startsWith("\uFEFF") ? 1 : 0;
  while (at < text.length) {
    const from = at;
    const blank = match(BLANK_OR_COMMENT, text, at);
    if (blank === null) {
      const head = match(ASSIGNMENT, text, at);
      if (head === null) return { ok: false, line, what: "it is not KEY=value, a comment or a blank line" };
      const key = head[1] ?? "";
      const extent = measureValue(text, at + head[0].length);
      if (!extent.ok) return { ok: false, line, what: `${key} can't be read: ${extent.what}` };
      const { start, end, unclear } = extent;
      const earlier = found.get(key);
      if (earlier !== undefined) {
        const { unclear: why, ...place } = earlier;
        overridden.push({ ...place, value: why === null ? { text: "" } : { unclear: why } });
      }
      found.set(key, { key, start, end, line, unclear });
      at = endOfLine(text, end);
    } else at += blank[0].length;
    line += countLines(text, from, at);
  }
  const values: Readonly<Record<string, unknown>> = parse(text);
  const entries = [...found.values()].map(({ unclear, ...place }) => ({
    ...place,
    value: valueOf(values[place.key], unclear),
  }));
  return { ok: true, text, entries, overridden };
}

function valueOf(read: unknown, unclear: string | null): EnvValue {
  if (unclear !== null) return { unclear };
  return typeof read === "string" ? { text: read } : { unclear: "dotenv reads no value for this name" };
}

/** Returns the assignment that counts for a key. */
export function findEntry(file: EnvFile & { ok: true }, key: string): EnvEntry | undefined {
  return file.entries.find((entry) => entry.key === key);
}

/**
 * Returns the text with these keys set: an existing key gets its new value in place, a new key is added at the
 * end. Every assignment of a released key becomes a comment. Every other byte stays. Throws RangeError for a
 * value that quoteValue can't write.
 */
export function setValues(
  file: EnvFile & { ok: true },
  values: ReadonlyMap<string, string>,
  released: ReadonlySet<string> = new Set(),
): string {
  const edits = [...file.entries, ...file.overridden]
    .filter(({ key }) => released.has(key) && !values.has(key))
    .flatMap((entry) => commentOf(file.text, entry));
  const added: string[] = [];
  for (const [key, value] of values) {
    const entry = findEntry(file, key);
    const quoted = quoteFor(key, value);
    if (entry === undefined) added.push(`${key}=${quoted}`);
    else edits.push(editOf(file.text, entry, quoted));
  }
  const parts: string[] = [];
  let at = 0;
  for (const { start, end, replacement } of edits.sort((a, b) => a.start - b.start)) {
    parts.push(file.text.slice(at, start), replacement);
    at = end;
  }
  const text = parts.join("") + file.text.slice(at);
  if (added.length === 0) return text;
  const feed = file.text.includes("\r\n") ? "\r\n" : "\n";
  const gap = text === "" || text.endsWith("\n") ? "" : feed;
  return text + gap + added.map((line) => line + feed).join("");
}

const HEADER = `# Settings and secrets of this fula-node. Keep a copy of this file on another machine: you need it, together
# with the data, to rebuild this node. Without it, encrypted data can't be read. Your own keys and comments
# stay as they are. After a change, run the same fula-node join command again.
# A line such as "# KEEP=28" shows the default of the day when this file was written. The installed version's
# own default counts, so a newer version brings its newer images. Remove the # to keep your value for good.
`;

/**
 * Returns the text of a new `.env`. Each known key has a comment above it that says what it is for. A default
 * stands as a comment. Other keys are at the end.
 */
export function newEnvText(
  known: readonly { readonly key: string; readonly about: string; readonly byDefault?: string }[],
  values: ReadonlyMap<string, string>,
): string {
  const blocks = known.flatMap(({ key, about, byDefault }) => {
    const value = values.get(key) ?? byDefault;
    if (value === undefined) return [];
    return [`\n# ${about}\n${values.has(key) ? "" : "# "}${key}=${quoteFor(key, value)}\n`];
  });
  const listed = new Set(known.map(({ key }) => key));
  const others = [...values]
    .filter(([key]) => !listed.has(key))
    .map(([key, value]) => `\n${key}=${quoteFor(key, value)}\n`);
  return HEADER + blocks.join("") + others.join("");
}

function quoteFor(key: string, value: string): string {
  const quoted = quoteValue(value);
  if (quoted === null) throw new RangeError(`the value of ${key} can't be written to a .env file`);
  return quoted;
}

/** A comment after the value stays. It needs a space before it: otherwise not every program reads it as a comment. */
function editOf(text: string, { start, end }: EnvEntry, replacement: string): Edit {
  const tail = match(BLANK_OR_COMMENT, text, end)?.[0] ?? "";
  const hash = tail.indexOf("#");
  return hash < 0 || tail[hash - 1] === " "
    ? { start, end, replacement }
    : { start, end: end + hash, replacement: `${replacement} ` };
}

/** Puts `# ` before each line of an assignment, after a byte order mark. */
function commentOf(text: string, { start, end }: EnvEntry): readonly Edit[] {
  const from = Math.max(text.lastIndexOf("\n", start - 1) + 1, text.startsWith("\uFEFF") ? 1 : 0);
  const starts = [from];
  for (let feed = text.indexOf("\n", from); feed >= 0 && feed < end; feed = text.indexOf("\n", feed + 1))
    starts.push(feed + 1);
  return starts.map((at) => ({ start: at, end: at, replacement: "# " }));
}

function endOfLine(text: string, from: number): number {
  const feed = text.indexOf("\n", from);
  return feed < 0 ? text.length : feed + 1;
}

function countLines(text: string, from: number, to: number): number {
  let count = 0;
  for (let at = text.indexOf("\n", from); at >= 0 && at < to; at = text.indexOf("\n", at + 1)) count += 1;
  return count;
}

function match(pattern: RegExp, text: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

/**
 * One value of a `.env` file, written and read so that dotenv and `docker compose` agree on it. Observed
 * behaviour (dotenv 18, Compose 2.26 and 2.40): a # after a space starts a comment in both, any other # only
 * in dotenv. Compose expands $ everywhere except in single quotes. They read backslashes inside double quotes
 * differently. After a backslash before the closing quote, dotenv reads on to a later quote.
 */

/** The position of a value with its quotes, and why programs read it differently; or what is wrong with the file there. */
type Extent =
  | { readonly ok: true; readonly start: number; readonly end: number; readonly unclear: string | null }
  | { readonly ok: false; readonly what: string };

const LINE_BREAK = /[\n\r\u2028\u2029]/;
/** Characters that UTF-8 text cannot have. U+FFFD stands for bytes that were not UTF-8. */
const NO_TEXT = /[\0\uFFFD\p{Surrogate}]/u;
const BARE = /^[A-Za-z0-9_./:@,+=%~-]+$/;
/** Whitespace at the start or end, for either program: Go also counts U+0085, JavaScript U+FEFF. */
const EDGE_BLANK = /^[\s\u0085]|[\s\u0085]$/;
const ODD_BLANK = /[^\S \t\r\n]|\u0085/;
const AFTER_QUOTE = /[ \t]*(?:#[^\n]*)?\r?(?=\n|$)/y;

/** Quotes a value so that both programs read it back unchanged; null if this is not possible. */
export function quoteValue(value: string): string | null {
  if (LINE_BREAK.test(value) || NO_TEXT.test(value)) return null;
  if (BARE.test(value)) return value;
  if (!value.includes("'") && !value.endsWith("\\")) return `'${value}'`;
  if (!/["\\$]/.test(value)) return `"${value}"`;
  return /[#$]|^['"`]/.test(value) || EDGE_BLANK.test(value) ? null : value;
}

/** Why quoteValue returns null for a value, and what to do. `why` is a clause about "it". */
export function whyUnwritable(value: string): { readonly why: string; readonly remedy: string } {
  if (LINE_BREAK.test(value))
    return {
      why: "it contains a line break, and a value in .env has one line",
      remedy: "Remove the line breaks.",
    };
  if (NO_TEXT.test(value))
    return { why: "it contains bytes that are not UTF-8 text", remedy: "Give it as UTF-8 text." };
  return {
    why: "dotenv and docker compose do not read it the same way, with any quotes",
    remedy:
      "Use a value without single quotes and without a backslash at the end. Or use one without $, #, double quotes, backslashes, and whitespace at the start or end.",
  };
}

/** Measures the value after `=`. `start` is its first character that is neither a space nor a tab. */
function measureValue(text: string, start: number): Extent {
  const quote = text[start];
  if (quote === "'" || quote === '"') return measureQuoted(text, start, quote);
  if (quote === "`")
    return {
      ok: false,
      what: "its value starts with a backtick, and only some programs read that as a quote",
    };
  if (quote !== undefined && ODD_BLANK.test(quote))
    return { ok: false, what: "there is whitespace other than spaces and tabs before its value" };
  return { ok: true, start, ...measureBare(text, start) };
}

function measureBare(text: string, start: number): { readonly end: number; readonly unclear: string | null } {
  const feed = text.indexOf("\n", start);
  const lineEnd = feed < 0 ? text.length : text[feed - 1] === "\r" ? feed - 1 : feed;
  const line = text.slice(start, lineEnd);
  const hash = line.indexOf("#");
  const isComment = hash >= 0 && isBlank(text[start + hash - 1]);
  const bare = trimEnd(isComment ? line.slice(0, hash) : line);
  const end = start + bare.length;
  if (hash >= 0 && line[hash - 1] !== " ")
    return { end, unclear: "only some programs read its # as the start of a comment" };
  if (bare.includes("$")) return { end, unclear: "docker compose expands a $ outside single quotes" };
  if (EDGE_BLANK.test(bare))
    return { end, unclear: "it ends with whitespace that only some programs remove" };
  return { end, unclear: null };
}

function measureQuoted(text: string, start: number, quote: "'" | '"'): Extent {
  let close = start + 1;
  for (let escaped = false; close < text.length; close += 1) {
    if (text[close] === quote && !escaped) break;
    escaped = text[close] === "\\" && !escaped;
  }
  AFTER_QUOTE.lastIndex = close + 1;
  if (close >= text.length) return { ok: false, what: "the quote at the start of its value is never closed" };
  if (!AFTER_QUOTE.test(text))
    return { ok: false, what: "there is text after the closing quote of its value" };
  const inner = text.slice(start + 1, close);
  if (inner.endsWith("\\"))
    return {
      ok: false,
      what: "there is a backslash before the closing quote, and some programs read past that quote",
    };
  const end = close + 1;
  const extent = (unclear: string | null): Extent => ({ ok: true, start, end, unclear });
  if (inner.includes("\n")) return extent("it has several lines");
  if (quote === "'" && inner.includes("'"))
    return extent("programs read a \\' inside single quotes differently");
  if (quote === '"' && /[\\$]/.test(inner))
    return extent("programs read a $ or a backslash inside double quotes differently");
  return extent(null);
}

function isBlank(character: string | undefined): boolean {
  return character === " " || character === "\t";
}

function trimEnd(line: string): string {
  let end = line.length;
  while (isBlank(line[end - 1])) end -= 1;
  return line.slice(0, end);
}
