import { describe, expect, it } from "vitest";
import {
  nextLookMs,
  recoverMs,
  restMs,
  searchMs,
  sizeLimitMs,
  sizeRetryMs,
  WINDOW,
  Windows,
  Yielding,
} from "../../../src/pinning/turns.ts";

describe("the window of an account", () => {
  it("grows while its pins are quick, to 32, and is small again after a slow one", () => {
    const windows = new Windows();
    expect(windows.all()).toEqual({});
    windows.pinned("a", 100);
    expect(windows.all()).toEqual({ a: WINDOW + 1 });
    for (let pins = 0; pins < 100; pins++) windows.pinned("a", 9_000);
    windows.pinned("b", 100);
    expect(windows.all()).toEqual({ a: 32, b: WINDOW + 1 });
    windows.waits("a", 9_000);
    expect(windows.all()).toMatchObject({ a: 32 });
    windows.waits("a", 10_001);
    expect(windows.all()).toEqual({ b: WINDOW + 1 });
    windows.pinned("b", 10_001);
    expect(windows.all()).toEqual({});
  });

  it("is remembered for the latest accounts only", () => {
    const windows = new Windows();
    for (let account = 0; account < 5_000; account++) windows.pinned(`a${account}`, 1);
    expect(Object.keys(windows.all())).toHaveLength(1_000);
    expect(windows.all()).toHaveProperty("a4999");
  });
});

describe("waits", () => {
  it("grow, and have a limit", () => {
    expect([0, 4_000, 1e9].map(nextLookMs)).toEqual([300, 1_000, 60_000]);
    expect([1, 2, 3, 50].map(recoverMs)).toEqual([15_000, 30_000, 60_000, 600_000]);
    expect([3, 6, 9, 300].map(restMs)).toEqual([120_000, 240_000, 480_000, 3_600_000]);
    expect([0, 1, 2, 50].map(searchMs)).toEqual([20_000, 40_000, 80_000, 600_000]);
    expect([0, 1, 50].map(sizeRetryMs)).toEqual([5_000, 10_000, 3_600_000]);
    expect([0, 1, 50].map(sizeLimitMs)).toEqual([30_000, 60_000, 900_000]);
  });
});

describe("the queue beside requests", () => {
  it("waits until there was no request for a moment", () => {
    const yielding = new Yielding();
    expect(yielding.waitMs(0)).toBe(0);
    yielding.begins(1_000);
    expect(yielding.waitMs(1_100)).toBe(40);
    yielding.ends(1_110);
    expect(yielding.waitMs(1_115)).toBe(35);
    expect(yielding.waitMs(1_150)).toBe(0);
  });

  it.each(["one after the other", "one that never ends"])("works half of the time at least: %s", (kind) => {
    const yielding = new Yielding();
    if (kind === "one that never ends") yielding.begins(0);
    let worked = 0;
    for (let now = 0; now < 60_000; now += 1) {
      yielding.begins(now);
      if (yielding.waitMs(now) === 0) worked += 1;
      yielding.ends(now);
    }
    expect(worked / 60_000).toBeCloseTo(0.5, 2);
  });
});
