import { readdir, readFile, stat } from "node:fs/promises";
import { posix } from "node:path";
import { fileURLToPath } from "node:url";
import type { Command } from "commander";
import { beforeAll, describe, expect, it, test } from "vitest";
import manifest from "../../package.json" with { type: "json" };
import { WRITER_PORTS } from "../../src/settings/conflicts.ts";
import { PURGEABLE } from "../../src/leave/policy.ts";
import { MASTER_SETTINGS } from "../../src/settings/master.ts";
import { STORAGE_SETTINGS } from "../../src/settings/storage.ts";
import { MASTER_CHECKS } from "../../src/preflight/checks.ts";
import { describeProgram } from "../../src/program.ts";
import { PACKAGE_ENTRIES } from "../../src/settings/layout.ts";
import { FakeMaster } from "../support/fake-master.ts";
import { fillPages } from "../support/generated-docs.ts";
import { prepare } from "../support/master-boxes.ts";
import {
  anchorsOf,
  callsOf,
  fencesOf,
  linksOf,
  pageUrl,
  proseOf,
  readPages,
  shellLinesOf,
  splitCommands,
} from "../support/pages.ts";
import { findHardWords, HARD_WORDS } from "../support/plain-words.ts";
import { FakeStorage, storageStepsOn } from "../support/storage-fake.ts";

let pages: ReadonlyMap<string, string>;
const everyPage = (check: (text: string, path: string) => unknown) => {
  for (const [path, text] of pages) check(text, path);
};

beforeAll(async () => {
  pages = await readPages();
});

test("the generated parts of all pages are those of the code (npm run docs fills them)", async () => {
  expect(Object.fromEntries(await fillPages(pages))).toEqual(Object.fromEntries(pages));
});

test("a list without a place, and a place without a list, are noticed", async () => {
  const without = new Map([...pages].filter(([path]) => path !== "docs/exit-codes.md"));
  await expect(fillPages(without)).rejects.toThrow("not on exactly one page: exits");
  const odd = new Map([...pages, ["docs/odd.md", "<!-- odd -->\n<!-- /odd -->"]]);
  await expect(fillPages(odd)).rejects.toThrow("docs/odd.md has a place for odd");
});

test("README.md has at most 8 KB", () => {
  expect(Buffer.byteLength(pages.get("README.md") ?? "")).toBeLessThanOrEqual(8192);
});

describe("what a page may hold", () => {
  it("is prose, and fenced blocks of a known kind: nothing that the checks below do not see", () => {
    everyPage((text, path) => {
      const kinds = fencesOf(text).map(({ language }) => language);
      expect(["sh", "text", "mermaid", "json", "sql"], path).toEqual(expect.arrayContaining(kinds));
      expect(
        proseOf(text),
        `${path}: a fence that is not closed, or not at the start of its line`,
      ).not.toContain("```");
      const indented = /\n\n {4,}\S.*/.exec(proseOf(text))?.[0];
      expect(indented, `${path}: a block by indentation`).toBeUndefined();
    });
  });

  it("shows output apart from commands", () => {
    everyPage((text, path) => {
      for (const { language, text: block } of fencesOf(text))
        if (language === "sh") expect(block, path).not.toMatch(/^[#$] (?:fula-node|npx|npm|docker) /m);
    });
  });
});

describe("commands on the pages", () => {
  it("are understood by the program: verbs, flags, settings, steps, checks", async () => {
    const steps = [
      ...(await prepare(new FakeMaster())).steps,
      ...(await storageStepsOn(new FakeStorage())),
    ].map(({ id }) => id);
    const faults: string[] = [];
    let count = 0;
    for (const [path, text] of pages) {
      for (const call of shellLinesOf(text).flatMap(callsOf)) {
        count += 1;
        const fault = (await parseFault(call)) ?? valueFault(call, steps);
        if (fault !== null) faults.push(`${path}: fula-node ${call.join(" ")}: ${fault}`);
      }
    }
    expect(faults).toEqual([]);
    expect(count).toBeGreaterThan(40);
  });

  it.each([
    ["fula-node joins", /unknown command/],
    ["fula-node leave --purge all --force", /unknown option '--force'/],
    ["npx --yes ./fula-node-VERSION.tgz snapshot verify", /missing required argument/],
    ["fula-node status now", /too many arguments/],
    ["node /opt/fula-master/cli/current/bin/fula-node.js user token", /required option '--email/],
    ["fula-node join-as-master --set CLUSTER_NAME=my-pool", /no setting CLUSTER_NAME/],
    ["fula-node join-as-storage-node --set VAULT_ADDRESS=0x1", /no setting VAULT_ADDRESS/],
    ["fula-node join-as-master --ignore everything", /no check everything/],
    ["fula-node join-as-master --adopt everything", /no step everything/],
    ["cat x | fula-node leave --purge everything # a comment", /no part everything/],
  ])("%s: it would be noticed", async (line, fault) => {
    const [call] = shellLinesOf(`\`\`\`sh\n${line}\n\`\`\`\n`).flatMap(callsOf);
    expect((await parseFault(call ?? [])) ?? valueFault(call ?? [], ["env-file"])).toMatch(fault);
  });

  it("are scripts of the package where npm runs them", () => {
    everyPage((text, path) => {
      for (const command of shellLinesOf(text).flatMap(splitCommands)) {
        const script = /^npm (?:run (\S+)|(test))/.exec(command);
        if (script !== null) expect(manifest.scripts, path).toHaveProperty([script[1] ?? script[2] ?? ""]);
      }
    });
  });
});

describe("links", () => {
  it("lead to files and anchors that exist", async () => {
    const broken: string[] = [];
    for (const [path, text] of pages) {
      for (const target of linksOf(text)) {
        const [file = "", anchor] = target.split("#", 2);
        const to = file === "" ? path : posix.normalize(posix.join(posix.dirname(path), file));
        const found = await stat(pageUrl(to)).catch(() => null);
        const page = pages.get(to);
        if (found === null || to.startsWith("..")) broken.push(`${path}: ${target}: there is no ${to}`);
        else if (anchor !== undefined && (page === undefined || !anchorsOf(page).has(anchor)))
          broken.push(`${path}: ${target}: ${to} has no such anchor`);
      }
    }
    expect(broken).toEqual([]);
  });

  it("reach every page from the README", () => {
    const reached = new Set(["README.md"]);
    for (const path of reached)
      for (const target of linksOf(pages.get(path) ?? "")) {
        const to = posix.normalize(posix.join(posix.dirname(path), target.split("#", 1)[0] ?? ""));
        if (pages.has(to)) reached.add(to);
      }
    expect([...pages.keys()].filter((path) => !reached.has(path))).toEqual([]);
  });

  it("in messages of the program lead to anchors that exist, in pages that are installed with it", async () => {
    expect(PACKAGE_ENTRIES).toEqual(
      expect.arrayContaining(manifest.files.map((entry) => entry.replace(/\/$/, ""))),
    );
    const references = await findReferences("src/");
    expect(references.length).toBeGreaterThanOrEqual(3);
    const broken = references.filter(({ page, anchor }) => {
      const text = pages.get(page);
      return text === undefined || (anchor !== undefined && !anchorsOf(text).has(anchor));
    });
    expect(broken).toEqual([]);
  });
});

describe("plain words", () => {
  it.each(HARD_WORDS.map(({ pattern, example }) => [example, pattern] as const))(
    "%s: is found",
    (example, pattern) => {
      expect(example).toMatch(pattern);
      expect(findHardWords(example)).not.toEqual([]);
    },
  );

  it.each([
    "written by hand",
    "on the other hand",
    "is no longer there",
    "there is no key",
    "bookkeeping",
    "a foreign thing",
  ])("%s: is allowed", (text) => expect(findHardWords(text)).toEqual([]));

  it("are all that a page has, also in its generated parts and its blocks", () => {
    const found: string[] = [];
    everyPage((text, path) => found.push(...findHardWords(text).map((one) => `${path}: ${one}`)));
    expect(found).toEqual([]);
  });
});

test("docs/ports.md names every port that a node needs", () => {
  const page = pages.get("docs/ports.md") ?? "";
  const settings = [...MASTER_SETTINGS, ...STORAGE_SETTINGS].filter(({ key }) => key.endsWith("_PORT"));
  const ports = [
    ...WRITER_PORTS.map(({ port }) => String(port)),
    ...settings.flatMap(({ byDefault }) => byDefault ?? []),
  ];
  expect(ports.length).toBeGreaterThanOrEqual(9);
  for (const port of ports) expect(page).toMatch(new RegExp(`\\| ${port} `));
  for (const { key } of settings) expect(page).toContain(`\`${key}\``);
});

/** What commander says against these arguments; null: nothing. */
async function parseFault(words: readonly string[]): Promise<string | null> {
  const program = describeProgram("0", () => Promise.resolve());
  for (const command of everyCommand(program))
    command.configureOutput({ writeErr: () => {}, writeOut: () => {} });
  try {
    await program.parseAsync(words, { from: "user" });
    return null;
  } catch (thrown) {
    if (!(thrown instanceof Error) || !("exitCode" in thrown)) throw thrown;
    return thrown.exitCode === 0 ? null : thrown.message;
  }
}

function everyCommand(command: Command): readonly Command[] {
  return [command, ...command.commands.flatMap(everyCommand)];
}

/** A value that commander takes and the verb would refuse; null: none. */
function valueFault(words: readonly string[], steps: readonly string[]): string | null {
  const settings = words[0] === "join-as-storage-node" ? STORAGE_SETTINGS : MASTER_SETTINGS;
  const known: Readonly<Record<string, readonly [what: string, values: readonly string[]]>> = {
    "--set": ["setting", ["KEY", ...settings.map(({ key }) => key)]],
    "--adopt": ["step", ["STEP", ...steps]],
    "--ignore": ["check", ["CHECK", ...MASTER_CHECKS.filter((one) => one.ignorable).map(({ id }) => id)]],
    "--purge": ["part", ["WHAT", "all", ...Object.keys(PURGEABLE)]],
  };
  for (const [index, word] of words.entries()) {
    const [what, values] = known[word] ?? [];
    const given = (words[index + 1] ?? "").replace(/=.*$/s, "").split(",");
    const odd = given.find((value) => values?.includes(value) === false);
    if (odd !== undefined) return `there is no ${what} ${odd}`;
  }
  return null;
}

/** Where the program's sources point into docs/. */
async function findReferences(directory: string) {
  const root = pageUrl(directory);
  const files = await readdir(root, { recursive: true, withFileTypes: true });
  const sources = files.filter((file) => file.isFile() && file.name.endsWith(".ts"));
  const found = await Promise.all(
    sources.map(async (file) => {
      const path = `${file.parentPath}/${file.name}`;
      const text = await readFile(path, "utf8");
      return [...text.matchAll(/\b(docs\/[\w-]+\.md)(?:#([\w-]+))?/g)].map(([, page = "", anchor]) => ({
        path: path.slice(fileURLToPath(root).length),
        page,
        anchor,
      }));
    }),
  );
  return found.flat();
}
