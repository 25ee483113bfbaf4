import { visible, withoutCids } from "../../units.ts";

/** Text that is HTML already. Only `markup` makes it, so whatever else comes into a page is escaped. */
export class Markup {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** What may stand in a template. Null and false leave nothing. */
export type Piece = Markup | string | number | null | false | readonly Piece[];

/**
 * A template of HTML. Its values are escaped, for elements and for attributes in double quotes. The indentation of the
 * template is left out.
 */
export function markup(parts: TemplateStringsArray, ...values: readonly Piece[]): Markup {
  const texts = partsOf(parts).map(
    (part, index) => `${part}${index < values.length ? render(values[index]) : ""}`,
  );
  return new Markup(texts.join(""));
}

const READ = new WeakMap<TemplateStringsArray, readonly string[]>();

function partsOf(parts: TemplateStringsArray): readonly string[] {
  const known = READ.get(parts);
  if (known !== undefined) return known;
  const read = parts.map((part) => part.replaceAll(/\s*\n\s*/g, "\n"));
  READ.set(parts, read);
  return read;
}

function render(piece: Piece | undefined): string {
  if (piece === undefined || piece === null || piece === false) return "";
  if (piece instanceof Markup) return piece.text;
  if (typeof piece === "string" || typeof piece === "number") return escapeHtml(String(piece));
  return piece.map(render).join("");
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

function escapeHtml(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => ENTITIES[character] ?? "");
}

const MOST = 400;
/** Nobody looks for anything in what follows. */
const MOST_READ = 4 * MOST;
/** As wide as e-mail addresses are in practice: better a word too many is hidden than a person shown. */
const EMAILS = /[^\s@<>"'(),;:]+@[^\s@<>"'(),;:]+\.[^\s@<>"'(),;:]+/g;

/** A sentence of another part of the program, as the page may show it: without contents and people, and not too long. */
export function plain(text: string): string {
  const shown = withoutCids(visible(text.slice(0, MOST_READ), { oneLine: true })).replaceAll(
    EMAILS,
    "(e-mail address)",
  );
  return shown.length > MOST ? `${shown.slice(0, MOST)}…` : shown;
}
