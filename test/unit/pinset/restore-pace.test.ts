import { expect, test } from "vitest";
import { type Mark, PinsetMarks } from "../../../src/pinset/marks.ts";
import { ConcurrencyTuner, Progress } from "../../../src/pinset/restore/restore-apply.ts";

/** Simulates a server that serves `rateAt(limit)` requests per second, for a number of seconds. Gives the lowest and the highest limit of the last third. */
function settle(
  rateAt: (limit: number) => number,
  seconds: number,
  most = 64,
): { least: number; most: number } {
  const tuner = new ConcurrencyTuner(0, most);
  const limits: number[] = [];
  for (let now = 0; now < seconds * 1000; now += 1000 / rateAt(tuner.limit)) {
    tuner.recordAnswer(now);
    limits.push(tuner.limit);
  }
  const late = limits.slice(-Math.ceil(limits.length / 3));
  return { least: late.reduce((a, b) => Math.min(a, b)), most: late.reduce((a, b) => Math.max(a, b)) };
}

test("the limit rises while more parallel requests are faster, and stays below the maximum", () => {
  expect(settle((limit) => limit * 100, 60).most).toBe(64);
  expect(settle((limit) => limit * 100, 60, 20).most).toBe(20);
  const saturated = settle((limit) => Math.min(limit, 16) * 100, 60);
  expect(saturated.least).toBeGreaterThanOrEqual(12);
});

test("the limit falls again if more parallel requests are slower", () => {
  const limits = settle((limit) => (limit <= 12 ? limit * 100 : 120_00 / limit), 120);
  expect(limits.most).toBeLessThan(48);
});

test("a failure halves the limit, down to a minimum", () => {
  const tuner = new ConcurrencyTuner(0, 64);
  for (let turn = 0; turn < 10; turn++) tuner.recordFailure(turn);
  expect(tuner.limit).toBe(4);
  for (let now = 10; now < 20_000; now += 1) tuner.recordAnswer(now);
  expect(tuner.limit).toBeGreaterThanOrEqual(4);
});

test("progress shows the rate and the time left", () => {
  const progress = new Progress("restoring", 10_000, 0);
  expect(progress.line(0, 0)).toBe("restoring: 0 of 10000 (0.0 %), 0/s, unknown time left");
  expect(progress.line(1000, 1000)).toBe("restoring: 1000 of 10000 (10.0 %), 1000/s, 9.0 s left");
});

test("a mark does not change the marks next to it", () => {
  const marks = new PinsetMarks(1001);
  const expected = Array.from({ length: 1001 }, (_, place) => ((place * 7) % 4) as Mark);
  for (const turn of [3, 0])
    expected.forEach((mark, place) => marks.set(place, turn === 0 ? mark : (turn as Mark)));
  expect(expected.map((_, place) => marks.get(place))).toEqual(expected);
  expect(marks.count(2)).toBe(expected.filter((mark) => mark === 2).length);
});
