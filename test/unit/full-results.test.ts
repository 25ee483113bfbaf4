import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { addResult, inSeedOrder, passedOf, readResults, readSizes } from "../full/results.ts";

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
