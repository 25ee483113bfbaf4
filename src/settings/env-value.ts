/**
 * One value of a `.env` file, written and read so that dotenv and `docker compose` agree on it. What
 * they were seen to do (dotenv 18, Compose 2.26 and 2.40): a # after a space starts a comment in both,
 * any other # in dotenv only; Compose expands $ everywhere but in single quotes; backslashes inside
 * double quotes differ; a backslash before the closing quote makes dotenv read on to a later quote.
 */

/** Where a value stands, quotes included, and why its programs read it differently; or what is wrong with the file there. */
export type Extent =
  | { readonly ok: true; readonly start: number; readonly end: number; readonly unclear: string | null }
  | { readonly ok: false; readonly what: string };

const LINE_BREAK = /[\n\r\u2028\u2029]/;
/** Not carried by UTF-8, or already lost on the way here: U+FFFD stands for bytes that were no UTF-8. */
const NO_TEXT = /[\0\uFFFD\p{Surrogate}]/u;
const BARE = /^[A-Za-z0-9_./:@,+=%~-]+$/;
/** Blanks at an edge, for both programs together: Go counts U+0085 as one, JavaScript U+FEFF. */
const EDGE_BLANK = /^[\s\u0085]|[\s\u0085]$/;
const ODD_BLANK = /[^\S \t\r\n]|\u0085/;
const AFTER_QUOTE = /[ \t]*(?:#[^\n]*)?\r?(?=\n|$)/y;

/** How a value is written so that both programs read it back unchanged; null where no way exists. */
export function quoteValue(value: string): string | null {
  if (LINE_BREAK.test(value) || NO_TEXT.test(value)) return null;
  if (BARE.test(value)) return value;
  if (!value.includes("'") && !value.endsWith("\\")) return `'${value}'`;
  if (!/["\\$]/.test(value)) return `"${value}"`;
  return /[#$]|^['"`]/.test(value) || EDGE_BLANK.test(value) ? null : value;
}

/** Why quoteValue finds no way, and what would help: two sentences about "it". */
export function whyUnwritable(value: string): { readonly why: string; readonly remedy: string } {
  if (LINE_BREAK.test(value))
    return { why: "it holds a line break, and .env has one line a value", remedy: "Leave line breaks out." };
  if (NO_TEXT.test(value))
    return { why: "it holds bytes that are no UTF-8 text", remedy: "Give it as UTF-8 text." };
  return {
    why: "no way of quoting it in .env is read alike by every program",
    remedy:
      "Leave out the single quotes, and a backslash at the end; or else $, #, double quotes, backslashes and blanks at the ends.",
  };
}

/** Measures the value that begins behind `=`, at the first character that is neither a space nor a tab. */
export function measureValue(text: string, start: number): Extent {
  const quote = text[start];
  if (quote === "'" || quote === '"') return measureQuoted(text, start, quote);
  if (quote === "`")
    return { ok: false, what: "a backtick opens its value, and only some programs take that for a quote" };
  if (quote !== undefined && ODD_BLANK.test(quote))
    return { ok: false, what: "a blank that is neither space nor tab stands before its value" };
  return { ok: true, start, ...measureBare(text, start) };
}

function measureBare(text: string, start: number): { readonly end: number; readonly unclear: string | null } {
  const feed = text.indexOf("\n", start);
  const lineEnd = feed < 0 ? text.length : text[feed - 1] === "\r" ? feed - 1 : feed;
  const line = text.slice(start, lineEnd);
  const hash = line.indexOf("#");
  const isComment = hash >= 0 && isBlank(text[start + hash - 1]);
  const bare = withoutBlanks(isComment ? line.slice(0, hash) : line);
  const end = start + bare.length;
  if (hash >= 0 && line[hash - 1] !== " ")
    return { end, unclear: "only some programs take its # for the beginning of a comment" };
  if (bare.includes("$"))
    return { end, unclear: "docker compose puts something else for a $ outside single quotes" };
  if (EDGE_BLANK.test(bare))
    return { end, unclear: "it ends with a blank that only some programs leave out" };
  return { end, unclear: null };
}

function measureQuoted(text: string, start: number, quote: "'" | '"'): Extent {
  let close = start + 1;
  for (let escaped = false; close < text.length; close += 1) {
    if (text[close] === quote && !escaped) break;
    escaped = text[close] === "\\" && !escaped;
  }
  AFTER_QUOTE.lastIndex = close + 1;
  if (close >= text.length) return { ok: false, what: "the quote that opens its value is never closed" };
  if (!AFTER_QUOTE.test(text)) return { ok: false, what: "text follows the quote that closes its value" };
  const inner = text.slice(start + 1, close);
  if (inner.endsWith("\\"))
    return {
      ok: false,
      what: "a backslash stands before the closing quote, and some programs read on past it",
    };
  const end = close + 1;
  const extent = (unclear: string | null): Extent => ({ ok: true, start, end, unclear });
  if (inner.includes("\n")) return extent("it spans several lines");
  if (quote === "'" && inner.includes("'"))
    return extent("programs read a \\' inside single quotes differently");
  if (quote === '"' && /[\\$]/.test(inner))
    return extent("programs read a $ or a backslash inside double quotes differently");
  return extent(null);
}

function isBlank(character: string | undefined): boolean {
  return character === " " || character === "\t";
}

function withoutBlanks(line: string): string {
  let end = line.length;
  while (isBlank(line[end - 1])) end -= 1;
  return line.slice(0, end);
}
