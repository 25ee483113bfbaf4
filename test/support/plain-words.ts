/** A word that makes a text hard to read, and what to say. */
export interface HardWord {
  readonly pattern: RegExp;
  readonly instead: string;
  /** A text with that word: a test checks that the pattern finds it. */
  readonly example: string;
}

/**
 * Words that no text for users may have: help, messages, pages. English is not the reader's first language, so a plain
 * word takes the place of each. `foreign` is allowed: it is the name of a finding and of an exit code.
 */
export const HARD_WORDS: readonly HardWord[] = [
  { pattern: /\bmend(?:s|ed|ing)?\b/i, instead: "repair, correct", example: "it mends what it made" },
  { pattern: /\bwish(?:es|ed)?\b/i, instead: "want, desired, up to date", example: "all is as wished" },
  { pattern: /\btell(?:s|ing)?\b|\btold\b/i, instead: "say, report, print, show", example: "it tells why" },
  { pattern: /\bobey(?:s|ed|ing)?\b/i, instead: "trust, follow", example: "whom this node obeys" },
  {
    pattern: /(?<!\bby )(?<!\bother )\bhands?\b/i,
    instead: "someone else; pass on; by hand",
    example: "something of another hand",
  },
  { pattern: /\bhanded\b/i, instead: "passed on", example: "is handed on" },
  { pattern: /\bfates?\b/i, instead: "what happens to", example: "the fate of a file" },
  { pattern: /\bbooks?\b/i, instead: "cache, table", example: "the books of a sweep" },
  { pattern: /\brooms?\b/i, instead: "space, buffer", example: "Room for data" },
  { pattern: /\bheard\b/i, instead: "responding, received", example: "peers that were heard" },
  { pattern: /\byour word\b/i, instead: "confirmation required", example: "One thing needs your word" },
  {
    pattern: /(?<!\bthere )\b(?:is|are|was|were) no(?! (?:longer|more)\b)\b/i,
    instead: "is not a",
    example: "is no file",
  },
  { pattern: /\bsuch of\b/i, instead: "those of", example: "but such of this box" },
  { pattern: /\bwhom\b/i, instead: "which, who", example: "whom the node follows" },
  { pattern: /\b(?:shall|shalt)\b/i, instead: "must, will", example: "which shall leave" },
  { pattern: /\banew\b/i, instead: "again", example: "made anew" },
  { pattern: /\bunasked\b/i, instead: "without being asked to", example: "not repaired unasked" },
  { pattern: /\bof another make\b/i, instead: "made by other software", example: "or of another make" },
  { pattern: /\blearnt\b/i, instead: "received, found", example: "what was learnt" },
  { pattern: /\bminted?\b/i, instead: "generated", example: "a minted secret" },
  { pattern: /\btakes? (?:\S+ ){1,4}for false\b/i, instead: "rejects", example: "takes it for false" },
];

/** Every hard word of a text, with the plain word and the text around it. */
export function findHardWords(text: string): readonly string[] {
  const line = text.replaceAll(/\s+/g, " ");
  return HARD_WORDS.flatMap(({ pattern, instead }) =>
    [...line.matchAll(new RegExp(pattern, "gi"))].map(({ 0: word, index }) => {
      const around = line.slice(Math.max(0, index - 40), index + word.length + 40);
      return `"${word}" (say: ${instead}) in: ${around.trim()}`;
    }),
  );
}
