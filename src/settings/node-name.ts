/** A node name has 1 to 64 characters: a-z and 0-9, with single dashes between them. */
export const NODE_NAME = /^[a-z0-9]+(?:-[a-z0-9]+)*$/;
export const MAX_NAME_CHARACTERS = 64;
const SHOWN_CHARACTERS = 80;

/** True for a valid node name. The allowed characters leave no two different names that look alike. */
export function isNodeName(text: string): boolean {
  return text.length <= MAX_NAME_CHARACTERS && NODE_NAME.test(text);
}

/**
 * Returns why a text is not a valid node name, as a sentence; null if it is valid. The first invalid character
 * is shown by its code point if it is not plain ASCII, since some characters look alike.
 */
export function validateNodeName(text: string): string | null {
  if (isNodeName(text)) return null;
  const printable = showName(text);
  if (text === "") return "A node name must not be empty.";
  const invalid = Array.from(text).find((character) => !/[a-z0-9-]/.test(character));
  if (invalid !== undefined && /[A-Z]/.test(invalid))
    return `${printable} contains ${invalid}; a node name has lower-case letters only.`;
  if (invalid === ".") return `${printable} contains a dot; a node name has only a-z, 0-9 and dashes.`;
  if (invalid !== undefined)
    return `${printable} contains ${showCharacter(invalid)}; a node name has only a-z, 0-9 and dashes.`;
  const { length } = text;
  if (length > MAX_NAME_CHARACTERS)
    return `${printable} has ${length} characters; a node name has at most ${MAX_NAME_CHARACTERS}.`;
  return `${printable} has a dash at the start or end, or two in a row; a node name has single dashes between letters and digits.`;
}

const NUMBERED = [2, 3, 4];

/** Suggests names if one is taken: the same name with a number, within the length limit. */
export function suggestNodeNames(taken: string): readonly string[] {
  const base = taken.replace(/-[0-9]{1,4}$/, "");
  const number = Number(/-([0-9]{1,4})$/.exec(taken)?.[1] ?? 1);
  return NUMBERED.map((step) => {
    const ending = `-${number + step - 1}`;
    const trimmed = base.slice(0, MAX_NAME_CHARACTERS - ending.length).replace(/-+$/, "");
    return `${trimmed}${ending}`;
  });
}

function showName(text: string): string {
  const printable = Array.from(text)
    .slice(0, SHOWN_CHARACTERS)
    .map((character) => (/[ -~]/.test(character) ? character : escapeCharacter(character)))
    .join("");
  return `"${printable}"${text.length > SHOWN_CHARACTERS ? "..." : ""}`;
}

function showCharacter(character: string): string {
  return /[!-~]/.test(character) ? character : escapeCharacter(character);
}

function escapeCharacter(character: string): string {
  return `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;
}
