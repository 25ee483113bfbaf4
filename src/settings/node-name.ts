/** A node's name is 1 to 64 characters: a-z and 0-9, with single dashes between them. */
const NAME = /^[a-z0-9]+(?:-[a-z0-9]+)*$/;
const MAX_CHARACTERS = 64;
const SHOWN_CHARACTERS = 80;

/** True for a name that a node may have; two names that look the same are the same. */
export function isNodeName(text: string): boolean {
  return text.length <= MAX_CHARACTERS && NAME.test(text);
}

/**
 * Why a text can't be a node's name, in a sentence; null where it can. The first character that is at
 * fault is named by its code point where it is not plain ASCII, since some look like others.
 */
export function validateNodeName(text: string): string | null {
  if (isNodeName(text)) return null;
  const shown = showName(text);
  if (text === "") return "A node's name must not be empty.";
  const odd = Array.from(text).find((character) => !/[a-z0-9-]/.test(character));
  if (odd !== undefined && /[A-Z]/.test(odd))
    return `${shown} holds ${odd}; a node's name has small letters.`;
  if (odd === ".") return `${shown} holds a dot; a node's name is a-z, 0-9 and dashes.`;
  if (odd !== undefined) return `${shown} holds ${showCharacter(odd)}; a node's name is a-z, 0-9 and dashes.`;
  const { length } = text;
  if (length > MAX_CHARACTERS)
    return `${shown} has ${length} characters; a node's name has ${MAX_CHARACTERS} at most.`;
  return `${shown} has a dash at an end, or two in a row; a node's name has single dashes between letters and digits.`;
}

const NUMBERED = [2, 3, 4];

/** Names to try where one is taken: the same one with a number, never longer than a name may be. */
export function suggestNodeNames(taken: string): readonly string[] {
  const base = taken.replace(/-[0-9]{1,4}$/, "");
  const number = Number(/-([0-9]{1,4})$/.exec(taken)?.[1] ?? 1);
  return NUMBERED.map((step) => {
    const ending = `-${number + step - 1}`;
    const trimmed = base.slice(0, MAX_CHARACTERS - ending.length).replace(/-+$/, "");
    return `${trimmed}${ending}`;
  });
}

function showName(text: string): string {
  const shown = Array.from(text)
    .slice(0, SHOWN_CHARACTERS)
    .map((character) => (/[ -~]/.test(character) ? character : escapeCharacter(character)))
    .join("");
  return `"${shown}"${text.length > SHOWN_CHARACTERS ? "..." : ""}`;
}

function showCharacter(character: string): string {
  return /[!-~]/.test(character) ? character : escapeCharacter(character);
}

function escapeCharacter(character: string): string {
  return `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;
}
