import { appendFileSync, mkdtempSync, rmSync, utimesSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { failedOf, reportText } from "../full/report-text.ts";
import {
  addResult,
  allFound,
  type Found,
  inSeedOrder,
  passedOf,
  readResults,
  readSizes,
  type Result,
  withoutNumber,
} from "../full/results.ts";

const directory = mkdtempSync(join(tmpdir(), "full-results-"));
afterAll(() => rmSync(directory, { recursive: true }));

const result = (name: string, passed: boolean) => ({ matrix: "m", name, passed, seconds: 1, detail: "" });

it("an interrupted run goes on with what has not passed, also after a line that was cut off", () => {
  const file = join(directory, "results.ndjson");
  addResult(file, { matrix: "m", effects: 2, points: 5 });
  addResult(file, result("one", true));
  addResult(file, result("two", false));
  appendFileSync(file, '{"matrix":"m","name":"thr');
  expect([...passedOf(file, "m")]).toEqual(["one"]);
  addResult(file, result("three", true));
  expect([...passedOf(file, "m")]).toEqual(["one", "three"]);
  expect([...passedOf(file, "another")]).toEqual([]);
  expect(readResults(file).map(({ name }) => name)).toEqual(["one", "two", "three"]);
  expect(readSizes(file)).toEqual([{ matrix: "m", effects: 2, points: 5 }]);
});

it("the order of points depends on the seed alone", () => {
  const points = Array.from({ length: 30 }, (_, index) => ({ name: `point ${index}` }));
  const names = (seed: number) => inSeedOrder(points, seed).map(({ name }) => name);
  expect(names(1)).toEqual(inSeedOrder(points.toReversed(), 1).map(({ name }) => name));
  expect(names(1)).not.toEqual(names(2));
  expect(names(1).toSorted()).toEqual(points.map(({ name }) => name).toSorted());
});

describe("the page with the results", () => {
  const planned = [
    { matrix: "m", cases: null },
    { matrix: "never", cases: null },
    { matrix: "c", cases: ["one", "two"] },
  ];
  const found = (source: string, results: readonly Result[], points = 5): Found => ({
    source,
    seed: "1",
    results,
    sizes: [{ matrix: "m", effects: 2, points }],
  });
  const all = ["a", "b", "d", "e", "f"].map((name) => result(name, true));
  const text = (...some: readonly Found[]): string => reportText(planned, some, "Made.");

  it("does not count points of a clean run that had another number of effects", () => {
    const parts = (effects: number, names: readonly string[]) =>
      names.map((name) => result(`before ${name} of ${effects}: write /x #1`, true));
    const mixed: Found = {
      ...found("s1", [...parts(2, ["1", "2"]), ...parts(3, ["1", "2", "3", "4"])]),
      sizes: [
        { matrix: "m", effects: 2, points: 5 },
        { matrix: "m", effects: 3, points: 6 },
      ],
    };
    expect(text(mixed)).toContain("| m | 3 | 6 | 4 |");
    expect(text(mixed)).toContain("**This is not complete**");
  });

  it("says that it is not complete as long as a point or a case is left", () => {
    const never = { ...found("new", all), results: [...all, { ...result("one", true), matrix: "c" }] };
    expect(text(never)).toContain("**This is not complete**");
    expect(text(never)).toContain("| m | 2 | 5 | 5 | 5 | 5 | 0 | 1 | new |");
    expect(text(never)).toContain("| never | - | - | 0 | 0 | 0 | 0 | - | - |");
    expect(text(never)).toContain("| c | 2 | 1 | 1 | 0 | 1 | new |");
    const whole = reportText(planned.slice(0, 1), [never], "Made.");
    expect(whole).toContain("This is complete: all 5 kills and cases have run. None of them failed.");
  });

  it("tells the latest result of a point, what failed, and which kill did not land", () => {
    const missed = { ...result("b", false), detail: "Error: the kill did not land: it | passed" };
    const page = text(found("new", [result("a", false), result("a", true), missed]));
    expect(page).toContain("| m | 2 | 5 | 2 | 1 | 1 | 0 | 1 | new |");
    expect(page).toContain("- m, `b`: `Error: the kill did not land: it | passed`");
    expect(page).toContain("1 of them failed.");
  });

  it("never mixes the results of two sources in one row", () => {
    const page = text(found("new", [result("a", true)]), found("old", all));
    expect(page).toContain("| m | 2 | 5 | 1 | 1 | 1 | 0 | 1 | new |");
    expect(page).not.toContain("old");
  });
});

describe("the page, written again on a machine without its results", () => {
  const planned = [
    { matrix: "m", cases: null },
    { matrix: "c", cases: ["one", "two"] },
  ];
  const failed = { ...result("before 2 of 2: write /a #1", false), detail: "Error: it | `differs`" };
  const first: Found = {
    source: "old",
    seed: "1",
    results: [
      ...["a", "b", "d", "e"].map((name) => result(name, true)),
      failed,
      { ...result("one", true), matrix: "c", detail: "3 kills" },
      { ...result("two", true), matrix: "c" },
    ],
    sizes: [{ matrix: "m", effects: 2, points: 5 }],
  };
  const COMMITS = ["old", "between", "new"];
  const former = (page: string) => ({
    page,
    isLater: (one: string, than: string) => COMMITS.indexOf(one) > COMMITS.indexOf(than),
  });
  const page = reportText(planned, [first], "Made.");
  const again = (passed: boolean, source = "new", points = 5): Found => ({
    source,
    seed: "1",
    results: [{ ...result("before 3 of 4: write /a #1", passed), again: true, detail: "why" }],
    sizes: [{ matrix: "m", effects: 2, points, again: true }],
  });

  it("is the same", () => {
    expect(page).toContain("This is complete: all 7 kills and cases have run. 1 of them failed.");
    expect(reportText(planned, [], "Made.", former(page))).toBe(page);
  });

  it("has newer results in the place of the former ones, and no row that is planned otherwise now", () => {
    const newer = { ...first, source: "new", results: first.results.slice(0, 2) };
    const next = reportText(planned, [newer], "Made.", former(page));
    expect(next).toContain("| m | 2 | 5 | 2 | 2 | 2 | 0 | 1 | new |");
    expect(next).toContain("| c | 2 | 2 | 2 | 0 | 1 | old |");
    expect(next).not.toContain("differs");
    for (const cases of [
      ["one", "two", "three"],
      ["one", "three"],
    ]) {
      const other = reportText([{ matrix: "c", cases }], [], "Made.", former(page));
      expect(other).toContain(`| c | ${cases.length} | 0 | 0 | 0 | - | - |`);
      expect(other).toContain("This is not complete");
    }
  });

  it("tells how a failed point ended when it ran again, also in the page after that", () => {
    expect(failedOf(page, "m")).toEqual([failed.name]);
    const passed = reportText(planned, [again(true)], "Made.", former(page));
    expect(passed).toContain("| m | 2 | 5 | 5 | 5 | 4 | 0 | 1 | old |");
    expect(passed).toContain("1 of them failed. 1 of these passed when they ran again on a later commit.");
    expect(passed).toContain("`Error: it | 'differs'`; ran again on new: passed\n");
    expect(failedOf(passed, "m")).toEqual([]);
    expect(reportText(planned, [], "Made.", former(passed))).toBe(passed);
    const failedAgain = reportText(planned, [again(false)], "Made.", former(passed));
    expect(failedAgain).toContain("1 of them failed. Made.");
    expect(failedAgain).toContain("; ran again on new: `why`\n");
    expect(failedOf(failedAgain, "m")).toEqual([failed.name]);
  });

  it("takes no earlier result for a later one, and none of the same commit", () => {
    const failing = { ...first, source: "new" };
    expect(reportText(planned, [failing, again(true, "between")], "Made.", former(""))).not.toContain(
      "ran again",
    );
    expect(reportText(planned, [failing, again(true)], "Made.", former(""))).not.toContain("ran again");
    const told = reportText(planned, [again(false)], "Made.", former(page));
    expect(reportText(planned, [again(true, "between")], "Made.", former(told))).toBe(told);
  });

  it("is not complete if the run has another number of points by now", () => {
    const next = reportText(planned, [again(true, "new", 7)], "Made.", former(page));
    expect(next).toContain("| m | 2 | 5, now 7 | 5 | 5 | 4 | 0 | 1 | old |");
    expect(next).toContain("This is not complete");
    expect(reportText(planned, [], "Made.", former(next))).toBe(next);
  });

  it("says of how many commits its rows are", () => {
    const newer = { ...first, source: "new", results: first.results.slice(0, 5) };
    expect(reportText(planned, [newer], "Made.", former(page))).toContain("The rows are of 2 commits.");
  });
});

it("what ran again because it had failed is no part of a whole run", () => {
  const file = join(directory, "again.ndjson");
  addResult(file, { ...result("one", true), again: true });
  expect([...passedOf(file, "m", false)]).toEqual([]);
  expect([...passedOf(file, "m", true)]).toEqual(["one"]);
});

it.each(["before", "during", "after"])("a point %s an effect has the same name in a longer run", (when) => {
  expect(withoutNumber(`${when} 3 of 4: write /a #1`)).toBe(withoutNumber(`${when} 07 of 12: write /a #1`));
});

it("the results of this source come first, then the newest", () => {
  const at = mkdtempSync(join(directory, "found-"));
  for (const [name, minutes] of [
    ["own", 9],
    ["older", 5],
    ["newer", 1],
  ] as const) {
    const file = join(at, `${name}-seed7.ndjson`);
    addResult(file, result(name, true));
    const when = new Date(Date.now() - minutes * 60_000);
    utimesSync(file, when, when);
  }
  const sources = allFound(at, join(at, "own-seed7.ndjson")).map(({ source, seed }) => [source, seed]);
  expect(sources).toEqual([
    ["own", "7"],
    ["newer", "7"],
    ["older", "7"],
  ]);
  expect(allFound(join(at, "nothing"))).toEqual([]);
});
