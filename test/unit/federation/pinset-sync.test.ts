import { expect, it } from "vitest";
import { ageOfCount } from "../../../src/federation/pinset-sync.ts";

it.each<[number, string]>([
  [-5_000, ""],
  [0, ""],
  [20_000, ""],
  [20_001, " (the master counted 20 seconds ago)"],
  [119_999, " (the master counted 119 seconds ago)"],
  [120_000, " (the master counted 2 minutes ago)"],
  [7_199_999, " (the master counted 119 minutes ago)"],
])("a count of %i ms ago is printed as %j", (ageMs, printed) => {
  expect(ageOfCount(ageMs)).toBe(printed);
});
