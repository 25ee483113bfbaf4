import * as fc from "fast-check";
import { expect, test } from "vitest";
import { chooseExpired, isDrop } from "../../../src/pinset/snapshot/chain.ts";

const chain = (drops: readonly boolean[]): Parameters<typeof chooseExpired>[0] =>
  drops.map((dropped, index) => ({
    name: `s${index}`,
    sequence: index + 1,
    previous: index === 0 ? null : `s${index - 1}`,
    dropped,
  }));

test("the newest stay, the oldest are removed first", () => {
  expect(chooseExpired(chain([false, false, false, false]).toReversed(), 2)).toEqual(["s0", "s1"]);
  expect(chooseExpired(chain([false, false]), 2)).toEqual([]);
  expect(chooseExpired(chain([false, false]), 0)).toEqual(["s0"]);
});

test("for any drops: neither a snapshot before a drop nor one of the newest is removed", () => {
  fc.assert(
    fc.property(
      fc.array(fc.boolean(), { minLength: 1, maxLength: 60 }),
      fc.integer({ min: 1, max: 30 }),
      (drops, keep) => {
        const expired = new Set(chooseExpired(chain(drops), keep));
        drops.forEach((dropped, index) => {
          if (dropped && index > 0) expect(expired.has(`s${index - 1}`)).toBe(false);
          if (index >= drops.length - keep) expect(expired.has(`s${index}`)).toBe(false);
          if (index < drops.length - keep && drops[index + 1] !== true)
            expect(expired.has(`s${index}`)).toBe(true);
        });
      },
    ),
  );
});

test.each([
  { before: 0, after: 0, share: 0.1, drop: false },
  { before: 1, after: 0, share: 1, drop: true },
  { before: 1000, after: 900, share: 0.1, drop: false },
  { before: 1000, after: 899, share: 0.1, drop: true },
  { before: 1000, after: 999, share: 0, drop: true },
  { before: 10, after: 2000, share: 0.1, drop: false },
])("$before -> $after with a share of $share: $drop", ({ before, after, share, drop }) => {
  expect(isDrop(before, after, share)).toBe(drop);
});
