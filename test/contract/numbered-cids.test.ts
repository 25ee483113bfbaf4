import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { cidKey, joinNumberedCids, openNumberedCids } from "../../src/pinset/spill.ts";
import { matchSpills, openSpill } from "../../src/pinset/workspace.ts";
import { MARKS } from "../../src/pinset/marks.ts";
import { cidOf } from "../support/cids.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "fula-spill-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

test("a join gives the same as a join of two maps, for any content", () => {
  const entries = fc.uniqueArray(fc.tuple(fc.nat(400), fc.nat(2 ** 32 - 1)), {
    selector: ([cid]) => cid,
    maxLength: 300,
  });
  fc.assert(
    fc.property(entries, entries, (left, right) => {
      const [a, b] = [openNumberedCids(directory), openNumberedCids(directory)];
      for (const [cid, number] of left) a.add(`cid-${cid}`, number);
      for (const [cid, number] of right) b.addKey(cidKey(`cid-${cid}`), number);
      const seen = new Map<string, readonly [number, number]>();
      joinNumberedCids(a, b, (own, other, key) => void seen.set(key(), [own, other]));
      const there = new Map(right);
      expect(seen).toEqual(
        new Map(left.map(([cid, number]) => [cidKey(`cid-${cid}`), [number, there.get(cid) ?? -1]])),
      );
      a.close();
      b.close();
    }),
    { numRuns: 30 },
  );
  expect(readdirSync(directory)).toEqual([]);
});

test("200,000 CIDs on the disk are kept apart", () => {
  const [a, b] = [openNumberedCids(directory), openNumberedCids(directory)];
  for (let index = 0; index < 200_000; index++) {
    a.add(`bafkreitest${index}`, index);
    if (index % 3 === 0) b.add(`bafkreitest${index}`, index * 7);
  }
  let met = 0;
  let wrong = 0;
  joinNumberedCids(a, b, (own, other) => {
    met += 1;
    if (other !== (own % 3 === 0 ? own * 7 : -1)) wrong += 1;
  });
  expect({ met, wrong }).toEqual({ met: 200_000, wrong: 0 });
  a.close();
  b.close();
});

test("a pin that is listed twice matches its first place, and neither entry is missing", () => {
  const line = (text: string, name: string): string => `${JSON.stringify({ cid: cidOf(text), name })}\n`;
  const [a, b] = [openSpill(directory), openSpill(directory)];
  a.add(Buffer.from(line("x", "") + line("y", "")));
  b.add(Buffer.from(line("y", "") + line("x", "") + line("x", "") + line("z", "")));
  const { left, right } = matchSpills(a, b);
  expect([left.get(0), left.get(1)]).toEqual([MARKS.same, MARKS.same]);
  expect([0, 1, 2, 3].map((place) => right.get(place))).toEqual([
    MARKS.same,
    MARKS.same,
    MARKS.same,
    MARKS.missing,
  ]);
  expect(() => a.add(Buffer.from("{}\n"))).toThrow(/cannot be read/);
  a.close();
  b.close();
});

test.skipIf(process.getuid?.() !== 0)("a full disk is reported as full", () => {
  const disk = join(directory, "disk");
  mkdirSync(disk);
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=256k", "tmpfs", disk]);
  try {
    const cids = openNumberedCids(disk);
    const fill = (): void => {
      for (let index = 0; index < 500_000; index++) cids.add(`cid ${index}`, index);
    };
    expect(fill).toThrow(
      expect.objectContaining({ exit: "unavailable", what: expect.stringContaining("is full") }),
    );
    cids.close();
  } finally {
    execFileSync("umount", [disk]);
  }
});
