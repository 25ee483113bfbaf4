import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decideQuota, QuotaCache, readStorageAnswer } from "../../../src/settings/quota.ts";

describe("the storage API's answer", () => {
  test.each([
    [200, { canUpload: true }, "allow"],
    [200, { canUpload: false, currentStorageBytes: 1 }, "deny"],
    [200, { canUpload: "true" }, "unknown"],
    [200, { canUpload: 1 }, "unknown"],
    [200, {}, "unknown"],
    [200, null, "unknown"],
    [200, [], "unknown"],
    [200, "canUpload", "unknown"],
    [201, { canUpload: true }, "unknown"],
    [401, { canUpload: true }, "unknown"],
    [402, { canUpload: false }, "unknown"],
    [500, { canUpload: true }, "unknown"],
  ] as const)("%i with %j is %s", (status, body, verdict) => {
    expect(readStorageAnswer({ status, body })).toBe(verdict);
  });

  test("opens the gate only by a clear yes, or in open mode when nothing is known", () => {
    const allowed = (["allow", "deny", "unknown"] as const).map((verdict) => [
      decideQuota(verdict, "strict").allowed,
      decideQuota(verdict, "open").allowed,
    ]);
    expect(allowed).toEqual([
      [true, true],
      [false, false],
      [false, true],
    ]);
  });
});

describe("remembered verdicts", () => {
  test("are fresh for their lifetime, and no longer", () => {
    const cache = new QuotaCache(30_000, 10);
    cache.set("a", "deny", 1_000);
    expect(cache.get("a", 30_999)).toBe("deny");
    expect(cache.get("a", 31_000)).toBeNull();
    expect(cache.size).toBe(0);
    expect(cache.get("b", 1_000)).toBeNull();
  });

  test("never outnumber the bound, and the latest stay", () => {
    const writes = fc.array(fc.tuple(fc.nat(40), fc.constantFrom("allow", "deny")), { maxLength: 200 });
    fc.assert(
      fc.property(writes, (entries) => {
        const cache = new QuotaCache(1_000, 8);
        for (const [index, [key, verdict]] of entries.entries()) {
          cache.set(String(key), verdict, index);
          expect(cache.size).toBeLessThanOrEqual(8);
          expect(cache.get(String(key), index)).toBe(verdict);
        }
        const latest = [...new Map(entries.toReversed().map(([key]) => [key, true])).keys()].slice(0, 8);
        for (const key of latest) expect(cache.get(String(key), entries.length)).not.toBeNull();
      }),
    );
  });
});
