import { readdir, readFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";

// What docs/architecture.md says of the folders and the linter can't see: sizes, names, and what a folder is for. Which
// folder may import which, circles, file sizes and pure files are held by .oxlintrc.json.

const root = fileURLToPath(new URL("../../", import.meta.url));
const all = (await readdir(`${root}src`, { recursive: true })).filter((path) => path.endsWith(".ts"));
const texts = new Map(
  await Promise.all(all.map(async (path) => [path, await readFile(`${root}src/${path}`, "utf8")] as const)),
);
const linter = JSON.parse(await readFile(`${root}.oxlintrc.json`, "utf8")) as {
  overrides: { files: string[]; rules: Record<string, unknown> }[];
};

it("no folder of src has more than 20 files", () => {
  const sizes = new Map<string, number>();
  for (const path of all) sizes.set(dirname(path), (sizes.get(dirname(path)) ?? 0) + 1);
  expect([...sizes].filter(([, files]) => files > 20)).toEqual([]);
});

it("commands has only verbs: the program loads every file of it", () => {
  const program = all
    .filter((path) => /^program[a-z-]*\.ts$/.test(path))
    .map((path) => texts.get(path))
    .join("");
  const idle = all.filter((path) => path.startsWith("commands/") && !program.includes(`import("./${path}")`));
  expect(idle).toEqual([]);
});

it("steps has only steps and the two install orders: a file is called as its step", () => {
  const lists = ["steps/master.ts", "steps/storage-node.ts"];
  // The two entries for cron are alike, each with an id of its own.
  const pairs = ["steps/master/cron-entry.ts"];
  const steps = all.filter((path) => path.startsWith("steps/") && ![...lists, ...pairs].includes(path));
  const others = steps.filter((path) => !texts.get(path)?.includes(`id: "${basename(path, ".ts")}"`));
  expect(steps.length).toBeGreaterThan(15);
  expect(others).toEqual([]);
});

it("a base name repeats only between commands, steps and one subject's folder", () => {
  const homes = new Map<string, string[]>();
  for (const path of all) {
    const [folder = ""] = path.split("/");
    if (["commands", "steps"].includes(folder) || !path.includes("/")) continue;
    homes.set(basename(path), [...(homes.get(basename(path)) ?? []), path]);
  }
  expect([...homes.values()].filter((paths) => paths.length > 1)).toEqual([]);
});

it("no file only forwards: each has a function, a class or data of its own", () => {
  const forwarders = all.filter((path) => {
    const own = (texts.get(path) ?? "").replaceAll(/^(?:import|export)\b[^;]*? from "[^"]+";$/gm, "");
    return !/^\s*(?:export |declare |async )*(?:function|class|const|interface|type|module)\b/m.test(own);
  });
  expect(forwarders).toEqual([]);
});

it("pure files await nothing and do not look at the clock", () => {
  const pure = linter.overrides.filter(({ rules }) => "import/no-nodejs-modules" in rules);
  const files = pure.flatMap((override) => override.files.map((file) => file.replace(/^src\//, "")));
  expect(files.length).toBeGreaterThan(30);
  expect(files.filter((file) => !texts.has(file))).toEqual([]);
  const impure = files.filter((file) => /\b(?:await|async)\b|new Date\(\)/.test(texts.get(file) ?? ""));
  expect(impure).toEqual([]);
});

it("the world is known to the composition root and to verbs only", () => {
  const knowing = all.filter((path) => /from "[./]*\/world\.ts"/.test(texts.get(path) ?? ""));
  const allowed = /^(?:commands\/|main\.ts$|program-verbs\.ts$)/;
  expect(knowing.filter((path) => !allowed.test(path))).toEqual([]);
});

it("no deadline and no duration is counted with the clock that can be set", () => {
  // A date is subtracted from another date only for the age of something that carries a date.
  const counting =
    /Date\.now\b|\bnow\(\)\.getTime\(\)\s*(?:\+|>=?|<=?)|(?:until|deadline|startedAt|startMs)\b[^;]*\bnow\(\)\.getTime\(\)/i;
  const files = all.filter((path) => counting.test(texts.get(path) ?? ""));
  expect(files).toEqual([]);
});
