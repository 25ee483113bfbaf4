import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  chooseExpired,
  chooseReferences,
  isDrop,
  type RetentionEntry,
} from "../../../src/pinset/snapshot/retention.ts";

const HOUR = 3_600_000;
const START = Date.parse("2026-01-01T00:00:00Z");

const entry = (index: number, over: Partial<RetentionEntry> = {}): RetentionEntry => ({
  name: `s${index}`,
  sequence: index + 1,
  takenAtMs: START + index * 6 * HOUR,
  count: 100,
  reference: null,
  accepted: false,
  replacesKey: false,
  intact: true,
  ...over,
});
const policy = (keep: number, dropShare = 0.1) => ({ keep, dropShare });
const after = (entries: readonly RetentionEntry[], keep: number): readonly RetentionEntry[] => {
  const expired = new Set(chooseExpired(entries, policy(keep)));
  return entries.filter(({ name }) => !expired.has(name));
};

/** What 0.1.0 removed: everything but the newest `keep` and the last one before each drop. */
const expiredBy010 = (entries: readonly RetentionEntry[], keep: number): ReadonlySet<string> => {
  const beforeDrops = new Set(entries.map(({ reference }) => reference));
  const old = entries.slice(0, Math.max(0, entries.length - Math.max(1, keep)));
  return new Set(old.map(({ name }) => name).filter((name) => !beforeDrops.has(name)));
};

describe("two years of a snapshot every six hours", () => {
  let kept: readonly RetentionEntry[] = [];
  for (let index = 0; index < 2 * 365 * 4; index++) kept = after([...kept, entry(index)], 28);

  test("leave the newest, and one for each of 14 days, 8 weeks and 12 months", () => {
    const ages = kept.map(({ sequence }) => 2 * 365 - sequence / 4);
    expect(kept.slice(-28).map(({ sequence }) => sequence)).toEqual(
      Array.from({ length: 28 }, (_, index) => 2 * 365 * 4 - 27 + index),
    );
    expect(ages.filter((days) => days >= 7 && days < 14)).toHaveLength(7);
    expect(ages.filter((days) => days >= 14 && days < 56).length).toBeGreaterThanOrEqual(6);
    expect(ages.filter((days) => days >= 62).length).toBeGreaterThanOrEqual(9);
    expect(Math.max(...ages)).toBeGreaterThan(330);
    expect(kept.length).toBeLessThan(55);
  });
});

test("the oldest is removed first, and at least one stays", () => {
  const day = [0, 1, 2, 3].map((index) => entry(index, { takenAtMs: START + index }));
  expect(chooseExpired(day.toReversed(), policy(2))).toEqual(["s0", "s1"]);
  expect(chooseExpired(day, policy(0))).toEqual(["s0", "s1", "s2"]);
  expect(chooseExpired(day.slice(0, 2), policy(2))).toEqual([]);
});

test("the largest stays while the newest is much smaller, and an alarm's reference until it is accepted", () => {
  const sameDay = (index: number, over: Partial<RetentionEntry>): RetentionEntry =>
    entry(index, { takenAtMs: START + index, ...over });
  const shrunk = [
    sameDay(0, {}),
    sameDay(1, { count: 91 }),
    sameDay(2, { count: 83 }),
    sameDay(3, { count: 83 }),
  ];
  expect(chooseExpired(shrunk, policy(1))).toEqual(["s1", "s2"]);
  expect(chooseExpired([...shrunk, sameDay(4, { count: 95 })], policy(1))).toEqual(["s0", "s1", "s2", "s3"]);
  const replaced = [sameDay(0, {}), sameDay(1, { reference: "s0" }), sameDay(2, {}), sameDay(3, {})];
  expect(chooseExpired(replaced, policy(1))).toEqual(["s2"]);
  expect(chooseExpired([...replaced, sameDay(4, { accepted: true })], policy(1))).toEqual([
    "s0",
    "s1",
    "s2",
    "s3",
  ]);
});

test("a pinset is compared with the reference of an open alarm, else with the largest since the last accepted", () => {
  const entries = [entry(0, { count: 300 }), entry(1, { count: 500 }), entry(2, { count: 400 })];
  expect(chooseReferences(entries)).toEqual(["s1", "s2", "s0"]);
  expect(chooseReferences([...entries, entry(3, { count: 20, reference: "s0" })])[0]).toBe("s0");
  const accepted = entry(3, { count: 20, reference: "s1", accepted: true });
  expect(chooseReferences([...entries, accepted])).toEqual(["s3"]);
  expect(chooseReferences([])).toEqual([]);
});

/** Any history: times also go back, drops refer to any earlier snapshot. */
const anyHistory = fc
  .array(
    fc.record({
      gapMs: fc.oneof(
        fc.integer({ min: -40 * 24 * HOUR, max: 40 * 24 * HOUR }),
        fc.constantFrom(HOUR, 24 * HOUR),
      ),
      count: fc.integer({ min: 0, max: 1000 }),
      back: fc.option(fc.integer({ min: 1, max: 30 }), { freq: 6 }),
      accepted: fc.integer({ min: 0, max: 19 }),
      damaged: fc.integer({ min: 0, max: 9 }),
    }),
    { minLength: 1, maxLength: 80 },
  )
  .map((turns) => {
    let takenAtMs = START;
    return turns.map(({ gapMs, count, back, accepted, damaged }, index): RetentionEntry => {
      takenAtMs += gapMs;
      const reference = back === null || back > index ? null : `s${index - back}`;
      return entry(index, { takenAtMs, count, reference, accepted: accepted === 0, intact: damaged > 0 });
    });
  });
const anyKeep = fc.integer({ min: 0, max: 30 });

describe("for any history", () => {
  test("KEEP is a floor, the newest and a much larger one stay, and a second run removes nothing", () => {
    fc.assert(
      fc.property(anyHistory, anyKeep, (entries, keep) => {
        const kept = after(entries, keep);
        const intact = entries.filter((one) => one.intact);
        expect(kept.filter((one) => !one.intact)).toEqual(entries.filter((one) => !one.intact));
        const floor = intact.slice(-Math.max(1, keep));
        expect(kept.filter((one) => one.intact).slice(-Math.max(1, keep))).toEqual(floor);
        const from = Math.max(
          0,
          entries.findLastIndex(({ accepted }) => accepted),
        );
        const newest = intact.at(-1);
        const most = Math.max(0, ...intact.filter((one) => one.sequence > from).map(({ count }) => count));
        if (newest !== undefined && isDrop(most, newest.count, 0.1))
          expect(kept.some((one) => one.intact && one.count >= most)).toBe(true);
        expect(after(kept, keep)).toEqual(kept);
      }),
      { numRuns: 500 },
    );
  });

  test("what was expired stays expired when time goes on and nothing is lost", () => {
    fc.assert(
      fc.property(anyHistory, anyKeep, fc.nat(), (entries, keep, cut) => {
        const quiet = entries.map((one) => ({
          ...one,
          count: 1,
          reference: null,
          accepted: false,
          intact: true,
        }));
        const early = quiet.slice(0, 1 + (cut % quiet.length));
        const late = new Set(chooseExpired(quiet, policy(keep)));
        expect(chooseExpired(early, policy(keep)).filter((name) => !late.has(name))).toEqual([]);
      }),
    );
  });

  test("of what 0.1.0 left, no more is removed than 0.1.0 would have removed", () => {
    fc.assert(
      fc.property(anyHistory, anyKeep, (entries, keep) => {
        // 0.1.0 knew only the one before, and no acceptance.
        const old = entries.map((one, index) => ({
          ...one,
          accepted: false,
          intact: true,
          reference: one.reference === null ? null : `s${index - 1}`,
        }));
        const before = expiredBy010(old, keep);
        expect(chooseExpired(old, policy(keep)).filter((name) => !before.has(name))).toEqual([]);
      }),
    );
  });
});

test.each([
  { before: 0, remaining: 0, share: 0.1, drop: false },
  { before: 1, remaining: 0, share: 1, drop: true },
  { before: 1000, remaining: 900, share: 0.1, drop: false },
  { before: 1000, remaining: 899, share: 0.1, drop: true },
  { before: 1000, remaining: 999, share: 0, drop: true },
  { before: 10, remaining: 2000, share: 0.1, drop: false },
])("$before -> $remaining with a share of $share: $drop", ({ before, remaining, share, drop }) => {
  expect(isDrop(before, remaining, share)).toBe(drop);
});
