import * as fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { isNodeName, suggestNodeNames, validateNodeName } from "../../../src/settings/node-name.ts";

const part = fc.stringMatching(/^[a-z0-9]{1,20}$/);
const names = fc.array(part, { minLength: 1, maxLength: 3 }).map((parts) => parts.join("-"));

describe("isNodeName", () => {
  it.each(["a", "7", "berlin-1", "x".repeat(64), "a-b-c", `${"a".repeat(62)}-b`])("takes %j", (name) => {
    expect(isNodeName(name)).toBe(true);
    expect(validateNodeName(name)).toBeNull();
  });

  it.each([
    ["", "must not be empty"],
    ["Berlin", "contains B; a node name has lower-case letters only"],
    ["berlin.de", "contains a dot"],
    ["berlin_1", "contains _;"],
    ["ber lin", "contains U+0020;"],
    ["b\u0435rlin", 'U+0435rlin" contains U+0435'],
    ["\uff42erlin", "contains U+FF42"],
    ["berl\u0131n", "contains U+0131"],
    ["berlin\n", "contains U+000A"],
    ["be\u200brlin", "contains U+200B"],
    ["\u{1d41b}erlin", "contains U+1D41B"],
    ["x".repeat(65), "has 65 characters; a node name has at most 64"],
    ["-a", "has a dash at the start or end"],
    ["a-", "has a dash at the start or end"],
    ["xn--80ak6aa92e", "two in a row"],
  ])("refuses %j and says why", (name, why) => {
    expect(isNodeName(name)).toBe(false);
    expect(validateNodeName(name)).toContain(why);
    expect(validateNodeName(name)).toMatch(/^[ -~]+$/);
  });

  test("whatever is refused gets a reason in printable ASCII, of bounded length", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: "binary" }), fc.string(), names), (text) => {
        const why = validateNodeName(text);
        expect(why === null).toBe(isNodeName(text));
        expect(why ?? "x").toMatch(/^[ -~]{1,1000}$/);
      }),
    );
  });

  test("a valid name does not change under case, width or Unicode normalisation", () => {
    fc.assert(
      fc.property(names, (name) => {
        expect(isNodeName(name)).toBe(name.length <= 64);
        expect(name.normalize("NFKC").toLowerCase()).toBe(name);
        expect(isNodeName(name.toUpperCase())).toBe(name.length <= 64 && !/[a-z]/.test(name));
      }),
    );
  });
});

describe("suggestNodeNames", () => {
  it("counts on", () => {
    expect(suggestNodeNames("berlin")).toEqual(["berlin-2", "berlin-3", "berlin-4"]);
    expect(suggestNodeNames("berlin-2")).toEqual(["berlin-3", "berlin-4", "berlin-5"]);
    expect(suggestNodeNames("x".repeat(64))[0]).toBe(`${"x".repeat(62)}-2`);
  });

  test("gives names only, none of them the taken one", () => {
    fc.assert(
      fc.property(names.filter(isNodeName), (name) => {
        const suggested = suggestNodeNames(name);
        expect(suggested.filter(isNodeName)).toHaveLength(3);
        expect(new Set([...suggested, name]).size).toBe(4);
      }),
    );
  });
});
