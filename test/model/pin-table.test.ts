import * as fc from "fast-check";
import { expect, test } from "vitest";
import { PinTable } from "../../src/model/pin-table.ts";

test("it behaves as a map with a mark, whatever comes in whatever order", () => {
  const action = fc.record({
    verb: fc.constantFrom("set", "meet", "get"),
    cid: fc.integer({ min: 0, max: 300 }).map((number) => `cid-${number}`),
    value: fc.integer({ min: 0, max: 2 ** 31 - 2 }),
  });
  fc.assert(
    fc.property(fc.integer(), fc.array(action, { maxLength: 2000 }), (seed, actions) => {
      const table = new PinTable(seed);
      const values = new Map<string, number>();
      const met = new Set<string>();
      for (const { verb, cid, value } of actions) {
        if (verb === "set") {
          table.set(cid, value);
          values.set(cid, value);
          met.delete(cid);
        } else if (verb === "meet") {
          expect(table.meet(cid)).toBe(values.has(cid) && !met.has(cid));
          if (values.has(cid)) met.add(cid);
        }
        expect(table.get(cid)).toBe(values.get(cid) ?? -1);
        expect(table.wasMet(cid)).toBe(met.has(cid));
        expect(table.size).toBe(values.size);
      }
    }),
    { numRuns: 50 },
  );
});

test("200,000 CIDs stay apart while it grows", () => {
  const table = new PinTable(1);
  for (let index = 0; index < 200_000; index++) table.set(`bafkreitest${index}`, index * 10_000);
  expect(table.size).toBe(200_000);
  for (let index = 0; index < 200_000; index += 7)
    expect(table.get(`bafkreitest${index}`)).toBe(index * 10_000);
  expect(table.get("bafkreitest200000")).toBe(-1);
});
