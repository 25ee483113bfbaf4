import { expect, it } from "vitest";
import { OperatorError } from "../../../src/errors.ts";
import { collectParts, type Monotonic, type PartSpec, within } from "../../../src/status/collect.ts";
import { EXIT_OF, type Judged, LATE, verdictOf, withRemarks } from "../../../src/status/part.ts";

/** A clock that only moves when a test says so. */
class FakeClock implements Monotonic {
  readonly #timers = new Map<() => void, number>();
  #ms = 0;

  nowMs(): number {
    return this.#ms;
  }

  after(ms: number, act: () => void): () => void {
    this.#timers.set(act, this.#ms + ms);
    return () => void this.#timers.delete(act);
  }

  get open(): number {
    return this.#timers.size;
  }

  async pass(ms: number): Promise<void> {
    this.#ms += ms;
    for (const [act, at] of this.#timers) if (at <= this.#ms) act();
    await new Promise((done) => setImmediate(done));
  }
}

const OK: Judged = { state: "ok", summary: "works", todo: null, evidence: {} };
const answers = (name: string, judged: Judged | null = OK): PartSpec => ({
  name,
  look: () => Promise.resolve(judged),
});
const fails = (name: string, thrown: unknown): PartSpec => ({ name, look: () => Promise.reject(thrown) });
const hangs = (name: string, deadlineMs: number, signals: AbortSignal[] = []): PartSpec => ({
  name,
  deadlineMs,
  look: (signal) => {
    signals.push(signal);
    return new Promise(() => {});
  },
});

it("a part that does not answer within its deadline is unknown, and is told to stop; the others are not delayed", async () => {
  const clock = new FakeClock();
  const signals: AbortSignal[] = [];
  let parts: Awaited<ReturnType<typeof collectParts>> | null = null;
  void collectParts([hangs("a", 3_000, signals), answers("b"), hangs("c", 5_000, signals)], clock).then(
    (all) => (parts = all),
  );
  await clock.pass(0);
  await clock.pass(3_000);
  expect(signals.map(({ aborted }) => aborted)).toEqual([true, false]);
  expect(parts).toBeNull();
  await clock.pass(2_000);
  expect(parts).toEqual([
    { name: "a", ...late("3.0 s"), durationMs: 3_000 },
    { name: "b", ...OK, durationMs: 0 },
    { name: "c", ...late("5.0 s"), durationMs: 5_000 },
  ]);
  expect(clock.open).toBe(0);
});

function late(after: string): Judged {
  return {
    state: "unknown",
    summary: `did not answer within ${after}`,
    todo: expect.any(String) as string,
    evidence: {},
  };
}

it("all parts are asked side by side", async () => {
  const clock = new FakeClock();
  const begun: string[] = [];
  const part = (name: string): PartSpec => ({
    name,
    look: () => {
      begun.push(name);
      return new Promise(() => {});
    },
  });
  void collectParts([part("a"), part("b"), part("c")], clock);
  expect(begun).toEqual(["a", "b", "c"]);
});

it("an error that a part throws is its state, with the reason: never ok, and never lost", async () => {
  const unavailable = new OperatorError({ exit: "unavailable", what: "It can't be reached.", why: "reset" });
  const integrity = new OperatorError({
    exit: "integrity",
    what: "The ledger differs.",
    problems: [{ subject: "018", what: "changed", remedy: "Look." }],
  });
  const parts = await collectParts([
    fails("a", unavailable),
    fails("b", integrity),
    fails("c", new TypeError("x is not a function")),
    {
      name: "d",
      look: () => {
        throw new RangeError("at once");
      },
    },
  ]);
  expect(parts.map(({ state, summary }) => `${state} ${summary}`)).toEqual([
    "unknown It can't be reached.",
    "down The ledger differs. 018: changed",
    "unknown could not be checked, because of a bug in fula-node: x is not a function",
    "unknown could not be checked, because of a bug in fula-node: at once",
  ]);
  expect(parts[0]?.evidence).toEqual({ error: "unavailable", why: "reset" });
  expect(parts[1]?.todo).toBe("Look.");
  expect(parts[2]?.evidence["stack"]).toContain("TypeError");
});

it("a part that this node does not have is left out", async () => {
  expect((await collectParts([answers("a", null), answers("b")])).map(({ name }) => name)).toEqual(["b"]);
});

it("an answer after the deadline is dropped, also if it is an error", async () => {
  const clock = new FakeClock();
  let fail = (_thrown: Error): void => {};
  const answer = within(1_000, () => new Promise<string>((_resolve, reject) => (fail = reject)), clock);
  await clock.pass(1_000);
  expect(await answer).toBe(LATE);
  fail(new Error("too late"));
  await clock.pass(0);
});

it.each<[readonly Judged["state"][], Judged["state"], string]>([
  [[], "ok", "ok"],
  [["ok", "ok"], "ok", "ok"],
  [["ok", "unknown"], "unknown", "unavailable"],
  [["unknown", "attention", "ok"], "attention", "pending"],
  [["attention", "down", "unknown"], "down", "unhealthy"],
])("parts that are %j make a node that is %s", (states, verdict, exit) => {
  expect(verdictOf(states.map((state) => ({ state })))).toBe(verdict);
  expect(EXIT_OF[verdict]).toBe(exit);
});

it("a remark replaces the words of a part that was better, and not those of one that was worse", () => {
  const remark = { state: "attention", sentence: "nearly full", todo: "add a disk" } as const;
  expect(withRemarks(OK, [remark])).toEqual({
    ...OK,
    state: "attention",
    summary: "nearly full",
    todo: "add a disk",
  });
  const down: Judged = { ...OK, state: "down", summary: "stopped" };
  expect(withRemarks(down, [remark])).toBe(down);
  expect(withRemarks(OK, [])).toBe(OK);
});
