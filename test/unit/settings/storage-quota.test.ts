import * as fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { reportStorage } from "../../../src/settings/pricing.ts";

const GIB = 1024 ** 3;
const PRICING = { freeTierBytes: 524_288_000, fulaPerGibMonth: 3 };

describe("reportStorage", () => {
  it("is upstream's, field for field", () => {
    const usage = { storageBytes: 524_288_000 + 2 * GIB, balanceFula: 8, isSuspended: false };
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
    expect(reportStorage({ storageBytes, balanceFula, isSuspended }, PRICING).canUpload).toBe(canUpload);
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
            { storageBytes, balanceFula, isSuspended },
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
