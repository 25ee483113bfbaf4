import { readdir, readFile } from "node:fs/promises";
import { expect, it } from "vitest";
import { pageUrl } from "../support/pages.ts";
import { findHardWords } from "../support/plain-words.ts";
import { literalsOf } from "../support/string-literals.ts";

it("no text of the program has a word that is hard to read", async () => {
  const paths = await readdir(pageUrl("src/"), { recursive: true });
  const sources = paths.filter((path) => path.endsWith(".ts") && !path.endsWith(".d.ts"));
  const found = await Promise.all(
    sources.map(async (path) => {
      const literals = literalsOf(await readFile(pageUrl(`src/${path}`), "utf8"));
      return literals.flatMap(({ line, text }) =>
        findHardWords(text).map((word) => `src/${path}:${line}: ${word}`),
      );
    }),
  );
  expect(found.flat()).toEqual([]);
});

it("finds the texts of a source, and nothing else", () => {
  const source = [
    "// A comment with a wish.",
    'const wish: "a type" = read("told", \'it\\\'s\', /mend/u, 1n); /* obey "this" */',
    "export const text = `heard ${wish.map((one) => `whom ${one} tells`).join()} anew`;",
    "const half = a / b / c; const tagged = sql`select ${half}`;",
  ].join("\n");
  expect(literalsOf(source)).toEqual([
    { line: 2, text: "a type" },
    { line: 2, text: "told" },
    { line: 2, text: "it's" },
    { line: 3, text: "heard … anew" },
    { line: 3, text: "whom … tells" },
    { line: 4, text: "select …" },
  ]);
  expect(literalsOf(source).flatMap(({ text }) => findHardWords(text))).toHaveLength(5);
  expect(() => literalsOf("const = 1")).toThrow();
});
