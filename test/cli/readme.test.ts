import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { fillReadme } from "../support/readme.ts";

test("the README's lists are those of the code (npm run readme fills them)", async () => {
  const readme = await readFile(new URL("../../README.md", import.meta.url), "utf8");
  expect(await fillReadme(readme)).toBe(readme);
});
