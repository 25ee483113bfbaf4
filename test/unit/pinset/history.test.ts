import { afterEach, beforeEach, expect, test } from "vitest";
import { historyPath, parseSnapshotHistory, parseSweepHistory, thin } from "../../../src/pinset/history.ts";
import { cidOf } from "../../support/cids.ts";
import { startClusterDouble } from "../../support/cluster-double.ts";
import { operationDeps, type OperationDeps } from "../../support/operation-deps.ts";
import { takeFrom } from "../../support/taken-snapshot.ts";

let deps: OperationDeps;

beforeEach(() => {
  deps = operationDeps();
});
afterEach(() => deps.clear());

test("a year of sweeps is thinned: every point of a week, then the last one of each day", () => {
  const end = Date.parse("2026-11-21T20:00:00.000Z");
  const points = Array.from({ length: 48 * 400 }, (_, index) => ({
    at: new Date(end - index * 30 * 60_000).toISOString(),
  }));
  const kept = thin(points);
  expect(kept.length).toBeLessThan(720);
  expect(kept.at(-1)).toEqual({ at: "2026-11-21T20:00:00.000Z" });
  expect(kept[0]?.at.slice(0, 10)).toBe("2025-11-21");
  expect(kept.filter(({ at }) => at.startsWith("2026-11-20"))).toHaveLength(48);
  expect(kept.filter(({ at }) => at.startsWith("2026-06-01"))).toEqual([{ at: "2026-06-01T23:30:00.000Z" }]);
  expect(thin(kept)).toEqual(kept);
});

test("each snapshot is recorded, and a history that begins anew has those that are still there", async () => {
  const double = await startClusterDouble({ pins: [{ cid: cidOf("one") }] });
  try {
    await takeFrom(double.url, deps);
    const path = historyPath(deps.heartbeat("take").path);
    const read = async () => parseSnapshotHistory(await deps.files.readText(path));
    const first = await read();
    expect(first).toMatchObject([{ pins: 1 }]);
    double.pins.set("two", { cid: cidOf("two") });
    deps.clock.move(60_000);
    await takeFrom(double.url, deps);
    const both = await read();
    expect(both).toMatchObject([{ pins: 1 }, { pins: 2 }]);
    expect(both?.[0]?.bytes).toBeGreaterThan(0);
    await deps.files.writeAtomic(path, "{", { mode: 0o644 });
    expect(await read()).toBeNull();
    deps.clock.move(60_000);
    await takeFrom(double.url, deps);
    expect(await read()).toHaveLength(3);
  } finally {
    await double.stop();
  }
});

test("a history that is none is damaged, and one that is absent is empty", () => {
  expect(parseSweepHistory(null)).toEqual([]);
  for (const text of ["", "{}", '[{"at":"yesterday"}]', '[{"at":"2026-11-21T20:00:00.000Z","pins":-1}]'])
    expect(parseSweepHistory(text)).toBeNull();
});
