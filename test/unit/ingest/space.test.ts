import fc from "fast-check";
import { describe, expect, it, test } from "vitest";
import { OVERHEAD_BYTES, Space, type Claim } from "../../../src/ingest/space.ts";
import { judgeSpace, type SpaceReading } from "../../../src/settings/space-limits.ts";

const MB = 1e6;
const READING = { usedBytes: 10 * MB, limitBytes: 50 * MB, availableBytes: 1_000 * MB };
const RULES = { reserveBytes: 100 * MB, blockBytes: 2 * MB };

describe("judgeSpace", () => {
  test.each([
    ["plenty", {}, "ok", /^10\.0 MB of 50\.0 MB used \(20\.0 %\), disk 1\.0 GB free$/, null],
    ["nine tenths", { usedBytes: 45 * MB }, "attention", /^nearly full: /, /KUBO_STORAGE_MAX/],
    ["no room for a block", { usedBytes: 49 * MB }, "attention", /^full: .*; uploads are refused$/, /KUBO/],
    ["over the limit", { usedBytes: 60 * MB }, "attention", /^full: 60\.0 MB of 50\.0 MB/, /KUBO/],
    ["a disk at its reserve", { availableBytes: 101 * MB }, "attention", /^full: .*reserve of 100/, /disk/],
    ["a full disk", { availableBytes: 0 }, "attention", /disk 0 bytes free/, /disk/],
    ["a limit of nothing", { usedBytes: 0, limitBytes: 0 }, "attention", /^full: .*100\.0 %/, /KUBO/],
  ] as const)("%s", (_name, change, state, sentence, todo) => {
    const judged = judgeSpace({ ...READING, ...change }, RULES);
    expect(judged).toMatchObject({ state, sentence: expect.stringMatching(sentence) as string });
    if (todo === null) expect(judged.todo).toBeNull();
    else expect(judged.todo).toMatch(todo);
  });

  it("does not know what kubo does not report", () => {
    expect(judgeSpace(null, RULES)).toMatchObject({ state: "unknown", todo: "see the line of kubo" });
  });
});

/** A kubo whose repository grows when it is told to. */
function openSpace(reading: SpaceReading | null = READING) {
  const kubo = { reading, asked: 0 };
  let nowMs = 0;
  const space = new Space({
    reserveBytes: RULES.reserveBytes,
    now: () => nowMs,
    read: async () => {
      kubo.asked += 1;
      const seen = kubo.reading;
      await Promise.resolve();
      return seen;
    },
  });
  const claim = async (bytes: number): Promise<Claim | string> => {
    const result = await space.claim(bytes - OVERHEAD_BYTES);
    if (result.kind !== "claimed") return result.kind;
    return { settle: (stored) => result.claim.settle(stored === 0 ? 0 : stored - OVERHEAD_BYTES) };
  };
  return { kubo, claim, pass: (ms: number) => void (nowMs += ms), left: () => space.leftBytes() };
}

describe("the space", () => {
  test("ends at the limit, counting what is under way and what was stored since the reading", async () => {
    const { claim } = openSpace();
    const first = (await claim(20 * MB)) as Claim;
    const second = (await claim(20 * MB)) as Claim;
    expect(await claim(MB)).toBe("full");
    first.settle(20 * MB);
    expect(await claim(MB)).toBe("full");
    second.settle(0);
    second.settle(0);
    expect(await claim(20 * MB + 1)).toBe("full");
    expect(await claim(20 * MB)).not.toBe("full");
  });

  test("is known to whoever does not claim: what is left by the last reading, and nothing before the first", async () => {
    const { kubo, claim, left } = openSpace();
    expect(left()).toBeNull();
    expect(kubo.asked).toBe(0);
    const block = (await claim(15 * MB)) as Claim;
    expect(left()).toBe(25 * MB);
    block.settle(0);
    expect(left()).toBe(40 * MB);
    expect(kubo.asked).toBe(1);
  });

  test("ends at the disk's reserve where that comes first", async () => {
    const { claim } = openSpace({ ...READING, availableBytes: 101 * MB });
    expect(await claim(MB + 1)).toBe("full");
    expect(await claim(MB)).not.toBe("full");
  });

  test("is read again after five seconds, by one request for all", async () => {
    const { kubo, claim, pass } = openSpace();
    await Promise.all([claim(MB), claim(MB), claim(MB)]);
    expect(kubo.asked).toBe(1);
    kubo.reading = { ...READING, usedBytes: 50 * MB };
    pass(4_999);
    expect(await claim(MB)).not.toBe("full");
    pass(1);
    expect(await claim(MB)).toBe("full");
    expect(kubo.asked).toBe(2);
  });

  test("counts a block that was stored while kubo was asked, since the answer may be older", async () => {
    const { claim, pass } = openSpace();
    const block = (await claim(40 * MB)) as Claim;
    pass(5_000);
    const next = claim(MB);
    block.settle(40 * MB);
    expect(await next).toBe("full");
  });

  test("is unknown while kubo does not report it, also if it did before", async () => {
    const { kubo, claim, pass } = openSpace(null);
    expect(await claim(MB)).toBe("unknown");
    kubo.reading = READING;
    expect(await claim(MB)).not.toBe("unknown");
    kubo.reading = null;
    pass(5_000);
    expect(await claim(MB)).toBe("unknown");
  });

  test("never lets uploads pass the limit, whenever the readings come", async () => {
    const step = fc.oneof(
      fc.record({ claim: fc.integer({ min: 1, max: 9 }) }),
      fc.record({ settle: fc.boolean() }),
      fc.record({ pass: fc.constantFrom(1_000, 5_000) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 80 }), async (steps) => {
        const { kubo, claim, pass } = openSpace();
        const open: { readonly claim: Claim; readonly bytes: number }[] = [];
        for (const one of steps) {
          if ("pass" in one) pass(one.pass);
          else if ("claim" in one) {
            const bytes = one.claim * MB;
            const got = await claim(bytes);
            if (typeof got !== "string") open.push({ claim: got, bytes });
          } else {
            const done = open.shift();
            if (done === undefined) continue;
            const { usedBytes } = kubo.reading ?? READING;
            if (one.settle) kubo.reading = { ...READING, usedBytes: usedBytes + done.bytes };
            done.claim.settle(one.settle ? done.bytes : 0);
          }
          const underWay = open.reduce((sum, { bytes }) => sum + bytes, 0);
          expect((kubo.reading?.usedBytes ?? 0) + underWay).toBeLessThanOrEqual(READING.limitBytes);
        }
      }),
    );
  });
});
