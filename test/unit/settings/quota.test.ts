import * as fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { decideQuota, QuotaCache, readStorageAnswer, reportStorage } from "../../../src/settings/quota.ts";

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
    [401, { canUpload: true }, "not-accepted"],
    [402, { canUpload: false }, "payment"],
    [403, { canUpload: true }, "forbidden"],
    [404, { canUpload: true }, "unknown"],
    [500, { canUpload: true }, "unknown"],
  ] as const)("%i with %j is %s", (status, body, verdict) => {
    expect(readStorageAnswer({ status, body })).toBe(verdict);
  });

  test("allows an upload only after a clear yes, or in open mode if the answer is unknown", () => {
    const verdicts = ["allow", "deny", "not-accepted", "payment", "forbidden", "unknown"] as const;
    const decided = verdicts.map((verdict) =>
      (["strict", "open"] as const).map((mode) => {
        const decision = decideQuota(verdict, mode);
        return decision.allowed || decision.status;
      }),
    );
    expect(decided).toEqual([
      [true, true],
      [402, 402],
      [401, 401],
      [402, 402],
      [403, 403],
      [503, true],
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

const GIB = 1024 ** 3;
const PRICING = { freeTierBytes: 524_288_000, fulaPerGibMonth: 3 };

describe("reportStorage", () => {
  it("is upstream's, field for field", () => {
    const usage = { storageBytes: 524_288_000 + 2 * GIB, balanceFula: 8, isSuspended: false, isHeld: false };
    expect(reportStorage(usage, PRICING)).toEqual({
      currentStorageBytes: 524_288_000 + 2 * GIB,
      freeTierBytes: 524_288_000,
      paidStorageBytes: Math.floor((8 / 3) * GIB),
      totalAvailableBytes: 524_288_000 + Math.floor((8 / 3) * GIB),
      balanceFula: 8,
      monthlyBurnRate: 6,
      isConsuming: true,
      canUpload: true,
      isSuspended: false,
    });
  });

  it.each([
    ["nothing stored, nothing paid", 0, 0, false, true],
    ["suspended, but below the free tier", 0, -1, true, true],
    ["one byte below the free tier", 524_287_999, 0, true, true],
    ["at the free tier without a balance", 524_288_000, 0, false, false],
    ["at the free tier with one", 524_288_000, 0.001, false, true],
    ["above it, suspended, with a balance", 524_288_001, 5, true, false],
    ["above it, in debt", 524_288_001, -0.5, false, false],
  ])("%s", (_case, storageBytes, balanceFula, isSuspended, canUpload) => {
    expect(reportStorage({ storageBytes, balanceFula, isSuspended, isHeld: false }, PRICING).canUpload).toBe(
      canUpload,
    );
  });

  test("an account that the operator suspended may not upload, below the free tier either", () => {
    const usage = { storageBytes: 0, balanceFula: 5, isSuspended: false };
    expect(reportStorage({ ...usage, isHeld: true }, PRICING)).toMatchObject({
      canUpload: false,
      isSuspended: true,
    });
    expect(reportStorage({ ...usage, isHeld: false }, PRICING)).toMatchObject({ canUpload: true });
  });

  test("survives JSON whatever the settings and the balance are", () => {
    const amounts = fc.double({ min: -1e15, max: 1e15, noNaN: true });
    fc.assert(
      fc.property(
        fc.maxSafeNat(),
        amounts,
        fc.boolean(),
        fc.maxSafeNat(),
        fc.double({ min: 0, max: 1e15, noNaN: true }),
        (storageBytes, balanceFula, isSuspended, freeTierBytes, fulaPerGibMonth) => {
          const report = reportStorage(
            { storageBytes, balanceFula, isSuspended, isHeld: false },
            { freeTierBytes, fulaPerGibMonth },
          );
          for (const value of Object.values(report))
            expect(typeof value === "boolean" || Number.isFinite(value)).toBe(true);
          for (const bytes of [report.paidStorageBytes, report.totalAvailableBytes]) {
            expect(Number.isSafeInteger(bytes)).toBe(true);
            expect(bytes).toBeGreaterThanOrEqual(0);
          }
        },
      ),
    );
  });
});

it("an ingest reads from the master's report what the master decided", () => {
  const usage = fc.record({
    storageBytes: fc.nat(2 ** 31),
    balanceFula: fc.integer({ min: -5, max: 5 }),
    isSuspended: fc.boolean(),
    isHeld: fc.boolean(),
  });
  fc.assert(
    fc.property(usage, (account) => {
      const body = reportStorage(account, PRICING);
      expect(readStorageAnswer({ status: 200, body })).toBe(body.canUpload ? "allow" : "deny");
    }),
  );
});
