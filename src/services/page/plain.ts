import { visible, withoutCids } from "../../units.ts";

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
