import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BufferPool } from "../../src/ingest/body.ts";
import { createQuotaGate } from "../../src/ingest/quota-gate.ts";
import { Slots, type Release } from "../../src/ingest/slots.ts";

const NEVER = new AbortController().signal;

describe("buffers for bodies", () => {
  test("are used again, and as many as are taken at once", async () => {
    const pool = new BufferPool(16);
    const seen = new Set<Buffer>();
    const settle: (() => void)[] = [];
    const lend = (): Promise<void> =>
      pool.use((buffer) => {
        expect(buffer).toHaveLength(16);
        seen.add(buffer);
        return new Promise((resolve) => settle.push(resolve));
      });
    const first = [lend(), lend()];
    expect(seen.size).toBe(2);
    for (const end of settle.splice(0)) end();
    await Promise.all(first);
    const second = [lend(), lend(), lend()];
    expect(seen.size).toBe(3);
    for (const end of settle) end();
    await Promise.all(second);
  });

  test("come back from a use that failed", async () => {
    const pool = new BufferPool(16);
    const seen: Buffer[] = [];
    const fail = (buffer: Buffer): Promise<never> => {
      seen.push(buffer);
      return Promise.reject(new Error("failed"));
    };
    await expect(pool.use(fail)).rejects.toThrow("failed");
    await expect(pool.use(fail)).rejects.toThrow("failed");
    expect(seen[0]).toBe(seen[1]);
  });
});

describe("the slots", () => {
  const open = (slots: number, maxWaiting: number, maxWaitMs = 60_000): Slots =>
    new Slots({ slots, maxWaiting, maxWaitMs });

  test("are given in the order of the line, and the line ends where it should", async () => {
    const slots = open(1, 2);
    const first = await slots.take([], NEVER);
    const order: string[] = [];
    const wait = async (name: string): Promise<Release | null> => {
      const release = await slots.take([], NEVER);
      order.push(`${name}: ${release === null ? "turned away" : "in"}`);
      return release;
    };
    const second = wait("second");
    const third = wait("third");
    expect(await wait("fourth")).toBeNull();
    expect(slots.waiting).toBe(2);
    first?.();
    first?.();
    (await second)?.();
    await third;
    expect(order).toEqual(["fourth: turned away", "second: in", "third: in"]);
  });

  test("are not kept for one who left, or lost patience", async () => {
    const slots = open(1, 5, 20);
    const leaving = new AbortController();
    const release = await slots.take([], NEVER);
    const left = slots.take([], leaving.signal);
    const impatient = slots.take([], NEVER);
    leaving.abort();
    expect(await left).toBeNull();
    expect(await impatient).toBeNull();
    expect(slots.waiting).toBe(0);
    release?.();
    expect(await slots.take([], leaving.signal)).toBeNull();
    expect(await slots.take([], NEVER)).not.toBeNull();
  });

  test("are never more than there are", async () => {
    const steps = fc.array(fc.boolean(), { maxLength: 60 });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 4 }), steps, async (most, takes) => {
        const slots = open(most, 1_000);
        const held: Release[] = [];
        let expected = 0;
        for (const take of takes) {
          if (take) {
            void slots.take([], NEVER).then((release) => release !== null && held.push(release));
            expected += 1;
          } else if (held.length > 0) {
            held.shift()?.();
            expected -= 1;
          }
          await new Promise((resolve) => setImmediate(resolve));
          expect(held.length).toBe(Math.min(most, expected));
        }
        while (held.length > 0) {
          held.shift()?.();
          await new Promise((resolve) => setImmediate(resolve));
        }
      }),
      { numRuns: 30 },
    );
  });
});

describe("the slots of one owner", () => {
  test("are a quarter, also when slots come back: the next owner in the queue gets them", async () => {
    const slots = new Slots({ slots: 8, maxWaiting: 4, maxWaitMs: 60_000 });
    const order: string[] = [];
    const take = async (...owners: readonly string[]): Promise<Release | null> => {
      const release = await slots.take(owners, NEVER);
      order.push(`${owners.join()}: ${release === null ? "turned away" : "in"}`);
      return release;
    };
    const held = await Promise.all(["b", "c", "d"].flatMap((owner) => [take(owner), take(owner)]));
    const first = await take("a");
    await take("a");
    const waiting = [take("a"), take("a"), take("a"), take("b", "x"), take("e")];
    await waiting[2];
    expect(order.splice(0)).toEqual(
      "bbccddaa"
        .split("")
        .map((owner) => `${owner}: in`)
        .concat("a: turned away"),
    );
    held[2]?.();
    await waiting[4];
    first?.();
    await waiting[0];
    held[0]?.();
    await waiting[3];
    expect(order).toEqual(["e: in", "a: in", "b,x: in"]);
  });
});

describe("the quota gate", () => {
  test("caches a definite answer for 30 s, a refusal as long as a permission, and an unclear answer not at all", async () => {
    let nowMs = 0;
    let asked = 0;
    let answer = { status: 200, body: { canUpload: false } as unknown };
    const storage = {
      storage: async () => {
        asked += 1;
        return answer;
      },
    };
    const gate = createQuotaGate({ mode: "strict", storage, now: () => nowMs, log: () => {} });
    const allowed = async (): Promise<readonly [boolean, number]> => [(await gate("t", "a")).allowed, asked];
    expect(await allowed()).toEqual([false, 1]);
    answer = { status: 200, body: { canUpload: true } };
    nowMs = 29_999;
    expect(await allowed()).toEqual([false, 1]);
    nowMs = 30_000;
    expect(await allowed()).toEqual([true, 2]);
    answer = { status: 500, body: null };
    nowMs = 60_000;
    expect(await allowed()).toEqual([false, 3]);
    expect(await allowed()).toEqual([false, 4]);
  });

  test("still asks about a token that was accepted before, whatever its address has sent since", async () => {
    let nowMs = 0;
    const storage = {
      storage: async (token: string) => ({
        status: token === "accepted" ? 200 : 401,
        body: { canUpload: true },
      }),
    };
    const gate = createQuotaGate({ mode: "strict", storage, now: () => nowMs, log: () => {} });
    expect(await gate("accepted", "a")).toEqual({ allowed: true });
    nowMs = 31_000;
    for (let forged = 0; forged < 20; forged += 1) await gate(`forged-${forged}`, "a");
    expect(await gate("another", "a")).toMatchObject({ allowed: false, status: 429 });
    expect(await gate("accepted", "a")).toEqual({ allowed: true });
    nowMs += 600_000;
    for (let forged = 0; forged < 20; forged += 1) await gate(`new-${forged}`, "a");
    expect(await gate("accepted", "a")).toMatchObject({ allowed: false, status: 429 });
  });

  test("logs once that the storage API fails and once that it is back, whatever the result for single tokens", async () => {
    const lines: string[] = [];
    const answers = [200, 500, 401, 500, 503, 401, 200, 401, 200].map((status) => ({
      status,
      body: { canUpload: true },
    }));
    const storage = { storage: async () => answers.shift() ?? { status: 200, body: null } };
    const log = (line: string): void => void lines.push(line);
    const gate = createQuotaGate({ mode: "open", storage, now: () => 0, log });
    for (const token of "abcdefghi") await gate(token, "a");
    expect(lines).toEqual([
      "quota: the storage API responded with HTTP status 500 and no usable answer",
      "quota: the storage API responded with HTTP status 503 and no usable answer",
      "quota: the storage API responds",
    ]);
  });
});
