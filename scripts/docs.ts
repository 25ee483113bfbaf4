import { writeFile } from "node:fs/promises";
import { fillPages } from "../test/support/generated-docs.ts";
import { pageUrl, readPages } from "../test/support/pages.ts";

// npm run docs: fills the lists of README.md and docs/ from the code.

const pages = await readPages();
for (const [path, text] of await fillPages(pages)) {
  if (text !== pages.get(path)) await writeFile(pageUrl(path), text);
}
