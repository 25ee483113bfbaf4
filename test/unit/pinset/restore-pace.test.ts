import { expect, test } from "vitest";
import { type Mark, PinsetMarks } from "../../../src/pinset/marks.ts";
import { ConcurrencyTuner, Progress } from "../../../src/pinset/restore/restore-apply.ts";

/** Runs a server that serves `rateAt(limit)` a second, for so many seconds; gives the least and the most at once of the last third. */
function settle(
  rateAt: (limit: number) => number,
  seconds: number,
  most = 64,
): { least: number; most: number } {
  const tuner = new ConcurrencyTuner(0, most);
  const limits: number[] = [];
  for (let now = 0; now < seconds * 1000; now += 1000 / rateAt(tuner.limit)) {
    tuner.answered(now);
    limits.push(tuner.limit);
  }
  const late = limits.slice(-Math.ceil(limits.length / 3));
  return { least: late.reduce((a, b) => Math.min(a, b)), most: late.reduce((a, b) => Math.max(a, b)) };
}

test("it goes as far as more at once is faster, and stays below the most", () => {
  expect(settle((limit) => limit * 100, 60).most).toBe(64);
  expect(settle((limit) => limit * 100, 60, 20).most).toBe(20);
  const saturated = settle((limit) => Math.min(limit, 16) * 100, 60);
  expect(saturated.least).toBeGreaterThanOrEqual(12);
});

test("it turns round where more at once is slower", () => {
  const limits = settle((limit) => (limit <= 12 ? limit * 100 : 120_00 / limit), 120);
  expect(limits.most).toBeLessThan(48);
});

test("trouble halves it, but not for ever", () => {
  const tuner = new ConcurrencyTuner(0, 64);
  for (let turn = 0; turn < 10; turn++) tuner.troubled(turn);
  expect(tuner.limit).toBe(4);
  for (let now = 10; now < 20_000; now += 1) tuner.answered(now);
  expect(tuner.limit).toBeGreaterThanOrEqual(4);
});

test("progress tells rate and time left", () => {
  const progress = new Progress("restoring", 10_000, 0);
  expect(progress.line(0, 0)).toBe("restoring: 0 of 10000 (0.0 %), 0/s, unknown time left");
  expect(progress.line(1000, 1000)).toBe("restoring: 1000 of 10000 (10.0 %), 1000/s, 9.0 s left");
});

test("marks keep apart, whatever stands beside them", () => {
  const marks = new PinsetMarks(1001);
  const wished = Array.from({ length: 1001 }, (_, place) => ((place * 7) % 4) as Mark);
  for (const turn of [3, 0])
    wished.forEach((mark, place) => marks.set(place, turn === 0 ? mark : (turn as Mark)));
  expect(wished.map((_, place) => marks.get(place))).toEqual(wished);
  expect(marks.count(2)).toBe(wished.filter((mark) => mark === 2).length);
});
