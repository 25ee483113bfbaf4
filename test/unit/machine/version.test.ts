import { describe, expect, it } from "vitest";
import { isAtLeast } from "../../../src/docker/versions.ts";

describe("isAtLeast", () => {
  it.each([
    ["v2.26.1", "2.26.1"],
    ["1.41", "1.41.0"],
    ["20.10.24+dfsg1", "20.10.24"],
    [" 5.5.0 ", "5.5.0"],
    ["22.04", "22.4"],
    ["12", "12.0.0"],
    ["2.37.1+ds1-0ubuntu2~24.04.1", "2.37.1"],
  ])("takes %s and %s for equal", (a, b) => {
    expect(isAtLeast(a, b)).toBe(true);
    expect(isAtLeast(b, a)).toBe(true);
  });

  it.each([
    ["1.9", "1.41"],
    ["2.17.0-desktop.1", "2.17.0"],
    ["29.0.0-rc.1", "29"],
    ["1.0.0-beta.2", "1.0.0-beta.11"],
    ["2.16.9", "2.17.0"],
    ["22.04", "22.10"],
  ])("takes %s for older than %s", (older, newer) => {
    expect(isAtLeast(older, newer)).toBe(false);
    expect(isAtLeast(newer, older)).toBe(true);
  });

  it.each(["", "latest", "x1.2", "-1.0", "trixie/sid"])("takes %j for no version", (text) => {
    expect(isAtLeast(text, "0.0.0")).toBe(false);
    expect(isAtLeast("1.0.0", text)).toBe(false);
  });
});
