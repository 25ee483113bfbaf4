import { visible, withoutCids } from "../../units.ts";

const MOST = 400;
/** As wide as e-mail addresses are in practice: better a word too many is hidden than a person shown. */
const EMAILS = /[^\s@<>"'(),;:]+@[^\s@<>"'(),;:]+\.[^\s@<>"'(),;:]+/g;

/** A sentence of another part of the program, as the page may show it: without contents and people, and not too long. */
export function plain(text: string): string {
  const shown = withoutCids(visible(text, { oneLine: true })).replaceAll(EMAILS, "(e-mail address)");
  return shown.length > MOST ? `${shown.slice(0, MOST)}…` : shown;
}
