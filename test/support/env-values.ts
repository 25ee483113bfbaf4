import fc from "fast-check";

/** Values as operators give them, thick with what files and shells give a meaning. */
export const anyValue = fc.oneof(
  { weight: 3, arbitrary: pieces() },
  fc.string({ unit: "binary", maxLength: 20 }),
  fc.string({ unit: "grapheme", maxLength: 20 }),
  fc.constantFrom("", " ", "'", '"', "\\", "#", "$", "`", "x".repeat(70_000), "true", "null", "~", "0x10", "1e3", "- a", "{a: b}"),
);

function pieces() {
  const piece = fc.constantFrom(
    ...["a", "B", "0", " ", "\t", "$", "$$", "${A}", "$(x)", "#", " #", "'", '"', "`", "\\", "\\\\", "\\n", "=", ":", "%"],
    ...["!", "&", ";", "~", "*", "\n", "\r", "\r\n", "\0", "\u0007", "\u001B[31m", "\u00A0", "\u0085", "\u2003"],
    ...["\u2028", "\uFEFF", "\uFFFD", "\uD83D", "\u00E9", "e\u0301", "\u{1F511}", "\u05D0", "export ", "A="],
  );
  return fc.array(piece, { maxLength: 10 }).map((parts) => parts.join(""));
}
