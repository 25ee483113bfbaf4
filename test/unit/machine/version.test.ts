import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compareVersions, isAtLeast, isVersion } from "../../../src/machine/compare-versions.ts";

const part = fc.integer({ min: 0, max: 99 });
const prerelease = fc.option(
  fc.array(fc.oneof(fc.constantFrom("alpha", "beta", "rc"), part.map(String)), {
    minLength: 1,
    maxLength: 3,
  }),
);
const version = fc
  .tuple(part, part, part, prerelease)
  .map(
    ([major, minor, patch, pre]) => `${major}.${minor}.${patch}${pre === null ? "" : `-${pre.join(".")}`}`,
  );

describe("compareVersions", () => {
  it("orders the examples of Semantic Versioning 2.0.0, section 11", () => {
    const ordered = [
      "1.0.0-alpha",
      "1.0.0-alpha.1",
      "1.0.0-alpha.beta",
      "1.0.0-beta",
      "1.0.0-beta.2",
      "1.0.0-beta.11",
      "1.0.0-rc.1",
      "1.0.0",
      "2.0.0",
      "2.1.0",
      "2.1.1",
      "10.0.0",
    ];
    for (const [index, older] of ordered.entries()) {
      for (const newer of ordered.slice(index + 1)) {
        expect(compareVersions(older, newer), `${older} < ${newer}`).toBeLessThan(0);
        expect(compareVersions(newer, older)).toBeGreaterThan(0);
      }
    }
  });

  it.each([
    ["v2.26.1", "2.26.1"],
    ["1.41", "1.41.0"],
    ["20.10.24+dfsg1", "20.10.24"],
    [" 5.5.0 ", "5.5.0"],
  ])("takes %s and %s for equal", (a, b) => {
    expect(compareVersions(a, b)).toBe(0);
  });

  it("compares numbers as numbers", () => {
    expect(compareVersions("1.9", "1.41")).toBeLessThan(0);
    expect(compareVersions("22.04", "22.4")).toBe(0);
  });

  it.each(["", "latest", "x1.2", "-1.0"])("refuses %j", (text) => {
    expect(() => compareVersions(text, "1.0.0")).toThrow(RangeError);
    expect(isVersion(text)).toBe(false);
    expect(isAtLeast(text, "0.0.0")).toBe(false);
  });

  it("is an order", () => {
    fc.assert(
      fc.property(version, version, version, (a, b, c) => {
        expect(Math.sign(compareVersions(a, b)) + Math.sign(compareVersions(b, a))).toBe(0);
        expect(compareVersions(a, a)).toBe(0);
        if (compareVersions(a, b) <= 0 && compareVersions(b, c) <= 0) {
          expect(compareVersions(a, c)).toBeLessThanOrEqual(0);
        }
      }),
    );
  });
});
