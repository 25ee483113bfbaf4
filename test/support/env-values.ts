import * as fc from "fast-check";

const MARKS = [
  ..."$#'\"`\\=:%!&;~*.-".split(""),
  "$$",
  "${B}",
  "$(x)",
  " #",
  "\t#",
  "# ",
  "\\n",
  "\\'",
  '\\"',
  "\\\\",
];
const BLANKS = [" ", "\t", "\n", "\r", "\r\n", "\v", "\u00A0", "\u0085", "\u2003", "\u2028", "\uFEFF"];
const ODD = ["\0", "\u0007", "\u001B[31m", "\uFFFD", "\uD83D", "\u00E9", "e\u0301", "\u{1F511}", "\u05D0"];
const WORDS = ["A", "x", "0", "y z", "export ", "A="];
const WHOLE = ["", "true", "null", "0x10", "1e3", "- a", "{a: b}", "x".repeat(70_000)];

/** Values as operators give them, with many characters that are special in files and shells. */
export const anyValue = fc.oneof(
  { weight: 3, arbitrary: joined([...MARKS, ...BLANKS, ...ODD, ...WORDS], 10) },
  fc.string({ unit: "binary", maxLength: 20 }),
  fc.string({ unit: "grapheme", maxLength: 20 }),
  fc.constantFrom(...WHOLE, ...MARKS, ...BLANKS),
);

/** What an operator may write after `KEY=` on one line, with or without quotes. */
export const anyRawValue = joined([...MARKS, " ", "\t", "\u00A0", "\u00E9", ...WORDS], 8);

const ASSIGNMENTS = ["\nA=", "\nB=", "\nexport A=", "\n B=", "\nC =", "\r\nA="];

/** Texts made of the elements of `.env` files, and of elements that break them. */
export const anyEnvText = fc
  .array(
    fc.oneof(
      { weight: 2, arbitrary: fc.constantFrom(...ASSIGNMENTS) },
      { weight: 2, arbitrary: fc.constantFrom(...WORDS, "\n", "\r\n", "'", '"') },
      fc.constantFrom(...MARKS, ...BLANKS, "\u00E9", "\0"),
    ),
    { maxLength: 16 },
  )
  .map((parts) => parts.join(""));

function joined(parts: readonly string[], maxLength: number): fc.Arbitrary<string> {
  return fc.array(fc.constantFrom(...parts), { maxLength }).map((chosen) => chosen.join(""));
}
