import { expect, it, test } from "vitest";
import { describeFindings, exitOf, type Severity, sortFindings } from "../../../src/doctor/finding.ts";

const some = (...severities: readonly Severity[]) =>
  severities.map((severity) => ({ id: "x", severity, what: "", evidence: {}, remedy: null }));

test.each([
  [[], "ok", "Nothing is wrong"],
  [["ok", "note"], "ok", "Nothing is wrong"],
  [["ok", "unknown"], "unavailable", "1 check could not be made"],
  [["unknown", "warning"], "pending", "1 warning, 1 check could not be made"],
  [["warning", "error", "error"], "unhealthy", "2 errors, 1 warning"],
] as const)("%j ends as %s", (severities, exit, words) => {
  expect(exitOf(some(...severities))).toBe(exit);
  expect(describeFindings(some(...severities))).toBe(words);
});

it("sorts the most serious first", () => {
  const errors = ["writer", "preflight-disk"].map((id) => some("error").map((one) => ({ ...one, id })));
  // The writer can't be repaired while the disk is full.
  const shown = sortFindings([...some("warning"), ...errors.flat()]).map(({ id }) => id);
  expect(shown).toEqual(["preflight-disk", "writer", "x"]);
  const sorted = sortFindings(some("ok", "note", "unknown", "warning", "error"));
  expect(sorted.map(({ severity }) => severity)).toEqual(["error", "warning", "unknown", "note", "ok"]);
});
