import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { collectLicenses } from "../../scripts/licenses.mjs";

let root: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "fula-node-licenses-"));
});

afterEach(() => rm(root, { recursive: true, force: true }));

/** Installs a package of these files, and gives the path of its code as the bundler names it. */
async function install(name: string, manifest: object, files: Readonly<Record<string, string>>) {
  const all = { "package.json": JSON.stringify({ name, version: "1.0.0", ...manifest }), ...files };
  for (const [file, text] of Object.entries(all)) {
    const path = join(root, "node_modules", name, file);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
  }
  return `node_modules/${name}/lib/index.js`;
}

describe("the licences of what is bundled", () => {
  it.each(["LICENSE", "LICENSE.md", "LICENCE.txt", "license", "COPYING", "LICENSE-MIT", "UNLICENSE"])(
    "are read from a file %s",
    async (file) => {
      const input = await install("@scope/one", { license: "MIT" }, { [file]: "the text\n" });
      expect(await collectLicenses({ root, inputs: ["src/cli.ts", input] })).toBe(
        "@scope/one 1.0.0 (MIT)\n\nthe text\n",
      );
    },
  );

  it("hold every licence and notice of a package, once, however many files of it are bundled", async () => {
    const files = {
      "LICENSE-MIT": "mit",
      "LICENSE-APACHE": "apache",
      NOTICE: "notice",
      "licenses.js": "code",
    };
    const input = await install("one", { license: "(MIT OR Apache-2.0)" }, files);
    const text = await collectLicenses({ root, inputs: [input, input.replace("index", "other")] });
    expect(text).toBe("one 1.0.0 ((MIT OR Apache-2.0))\n\napache\n\nmit\n\nnotice\n");
  });

  it("of a package inside another one are its own", async () => {
    await install("outer", { license: "MIT" }, { LICENSE: "outer text" });
    const inner = await install(
      "outer/node_modules/inner",
      { name: "inner", license: "ISC" },
      { LICENSE: "i" },
    );
    expect(await collectLicenses({ root, inputs: [inner] })).toBe("inner 1.0.0 (ISC)\n\ni\n");
  });

  it("are checked in for a package that ships none", async () => {
    const input = await install("one", { license: "MIT" }, { "README.md": "## License\n\nMIT" });
    const checkedIn = { one: "license-of-blake-hash.txt" };
    expect(await collectLicenses({ root, inputs: [input], checkedIn })).toContain("LongYinan");
    await expect(collectLicenses({ root, inputs: [input], checkedIn: { one: "none.txt" } })).rejects.toThrow(
      "none.txt",
    );
  });

  it("fail the build where a text is missing or empty: every such package is named", async () => {
    const inputs = [
      await install("bare", { license: "MIT" }, { "index.js": "" }),
      await install("blank", { license: "MIT" }, { LICENSE: " \n" }),
      await install("fine", { license: "MIT" }, { LICENSE: "text" }),
    ];
    await expect(collectLicenses({ root, inputs })).rejects.toThrow(
      /bare 1\.0\.0: no licence text.*\nblank 1\.0\.0: no licence text.*$/,
    );
  });

  it.each([
    [{ license: "GPL-3.0-only" }, "GPL-3.0-only is not on the list"],
    [{ license: "MIT AND GPL-2.0-only" }, "is not on the list"],
    [{ license: "SEE LICENSE IN LICENSE" }, "is not on the list"],
    [{ license: "Apache-2.0 WITH LLVM-exception" }, "is not on the list"],
    [{ licenses: [{ type: "AGPL-3.0" }] }, "AGPL-3.0 is not on the list"],
    [{}, "package.json names no licence"],
  ])("fail the build for %j", async (manifest, why) => {
    const input = await install("one", manifest, { LICENSE: "text" });
    await expect(collectLicenses({ root, inputs: [input] })).rejects.toThrow(why);
  });

  it.each([
    [{ license: "MIT AND ISC" }],
    [{ license: "(GPL-2.0-only OR BSD-3-Clause)" }],
    [{ license: { type: "0BSD" } }],
    [{ licenses: [{ type: "MIT" }, { type: "GPL-2.0" }] }],
  ])("let %j pass", async (manifest) => {
    const input = await install("one", manifest, { LICENSE: "text" });
    expect(await collectLicenses({ root, inputs: [input] })).toContain("text");
  });
});
