import { expect, test } from "vitest";
import { describeProof, parseRestoreRecord, renderRestoreRecord } from "../../../src/dumps/restore-record.ts";

const PROVEN = { at: "2026-11-20T00:00:00.000Z", durationMs: 4200, dumpBytes: 1_234_567 };

test("what was written is read", () => {
  expect(parseRestoreRecord(renderRestoreRecord(PROVEN))).toEqual(PROVEN);
});

test.each([
  null,
  "",
  "{",
  "null",
  "{}",
  '{"at":"soon","durationMs":1,"dumpBytes":1}',
  '{"at":"2026-11-20T00:00:00Z"}',
])("%s proves nothing", (text) => {
  expect(parseRestoreRecord(text)).toBeNull();
});

test.each([
  ["2026-11-20T00:01:00Z", "restore proven 60 s ago (1.2 MB in 4.2 s)", false],
  ["2026-12-20T00:00:00Z", "restore proven 30 days ago (1.2 MB in 4.2 s)", false],
  ["2026-12-20T00:00:01Z", "restore proven 30 days ago (1.2 MB in 4.2 s)", true],
  ["2026-11-19T00:00:00Z", "restore proven at 2026-11-20T00:00:00.000Z (1.2 MB in 4.2 s)", true],
])("seen at %s: %s", (now, sentence, isOld) => {
  expect(describeProof(PROVEN, new Date(now))).toEqual({ sentence, isOld });
});
