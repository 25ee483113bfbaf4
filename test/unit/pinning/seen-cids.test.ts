import { expect, it } from "vitest";
import { SeenCids } from "../../../src/pinning/watch.ts";
import { cidOf } from "../../support/cids.ts";

it("finds everything that was added, and little else", () => {
  const seen = new SeenCids(7);
  const cids = Array.from({ length: 20_000 }, (_, index) => cidOf(`seen ${index}`));
  for (const cid of cids) seen.add(cid);
  expect(cids.every((cid) => seen.has(cid))).toBe(true);
  const others = Array.from({ length: 20_000 }, (_, index) => cidOf(`other ${index}`));
  expect(others.filter((cid) => seen.has(cid)).length).toBeLessThan(20);
});
