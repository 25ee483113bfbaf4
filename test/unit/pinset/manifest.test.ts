import { expect, test } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { parseManifest, serialiseManifest, snapshotName } from "../../../src/pinset/snapshot/manifest.ts";
import { MANIFEST } from "../../support/snapshot-manifest.ts";

const exitOf = (text: string): string => {
  try {
    parseManifest(text, "the-file");
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(OperatorError);
    expect((thrown as OperatorError).what).toContain("the-file");
    return (thrown as OperatorError).exit;
  }
  return "ok";
};

test("a manifest is the same after it is written and read", () => {
  expect(parseManifest(serialiseManifest(MANIFEST), "f")).toEqual(MANIFEST);
});

test("a newer format gives another error than a broken one", () => {
  expect(exitOf(JSON.stringify({ ...MANIFEST, version: 2, body: "quite different" }))).toBe("newer");
  expect(exitOf(JSON.stringify({ ...MANIFEST, version: 0 }))).toBe("integrity");
  expect(exitOf(JSON.stringify({ ...MANIFEST, format: "other" }))).toBe("integrity");
  expect(exitOf("{")).toBe("integrity");
  expect(exitOf("[]")).toBe("integrity");
});

test.each(Object.keys(MANIFEST))("a manifest without %s is refused", (field) => {
  expect(exitOf(JSON.stringify({ ...MANIFEST, [field]: undefined }))).toBe("integrity");
});

test("the name of a snapshot is its time, to the second", () => {
  expect(snapshotName(new Date("2026-11-21T20:05:01.999Z"))).toBe("pinset-20261121T200501Z");
});
