import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { countLines, countNewlines, LineBlocks, splitLines } from "../../../src/machine/line-scanner.ts";

/** Lines of a text, blank ones left out, as a reference. */
function plainLines(text: string): readonly string[] {
  return text.split("\n").filter((line) => line !== "");
}

const texts = fc.string({ unit: fc.constantFrom("a", "b", "\n", "é"), maxLength: 60 });

describe("lines of a block", () => {
  test("are what a split of the text gives, without blank ones", () => {
    fc.assert(
      fc.property(texts, (text) => {
        const lines = [...splitLines(Buffer.from(text))].map(String);
        expect(lines).toEqual(plainLines(text));
      }),
    );
  });

  test("are counted with their newlines, and one at the end without it", () => {
    expect(["", "a", "a\n", "a\nb", "\n\n"].map((text) => countLines(Buffer.from(text)))).toEqual([
      0, 1, 1, 2, 2,
    ]);
    expect(countNewlines(Buffer.from("a\nb\nc"))).toBe(2);
  });
});

test("blocks of whole lines hold every byte of a stream, in order, however it is cut into parts", () => {
  const parts = fc.array(fc.tuple(texts, fc.nat(150_000)), { maxLength: 12 });
  fc.assert(
    fc.property(parts, (given) => {
      const chunks = given.map(([text, fill]) => Buffer.from(text + "x".repeat(fill)));
      const blocks = new LineBlocks();
      const full = chunks.map((chunk) => blocks.add(chunk)).filter((block) => block !== null);
      for (const block of full) expect(block.at(-1)).toBe(0x0a);
      expect(Buffer.concat([...full, blocks.rest()]).equals(Buffer.concat(chunks))).toBe(true);
    }),
    { numRuns: 60 },
  );
});
