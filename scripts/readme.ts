import { readFile, writeFile } from "node:fs/promises";
import { fillReadme } from "../test/support/readme.ts";

const path = new URL("../README.md", import.meta.url);
await writeFile(path, await fillReadme(await readFile(path, "utf8")));
