import { expect, test } from "vitest";
import { DrillFinding, findingOf, untilFound } from "../../../src/drills/drill-finding.ts";

const passed = { state: "passed", summary: "all of it", todo: null, evidence: {} } as const;

test("a finding is the outcome, and another error is thrown on", async () => {
  const { signal } = new AbortController();
  expect(await findingOf(signal, () => Promise.resolve(passed))).toEqual(passed);
  const find = () => Promise.reject(new DrillFinding("it is not so", { todo: "repair it" }));
  expect(await findingOf(signal, find)).toEqual({
    state: "failed",
    summary: "it is not so",
    todo: "repair it",
    evidence: {},
  });
  const bug = new TypeError("a bug");
  await expect(findingOf(signal, () => Promise.reject(bug))).rejects.toBe(bug);
});

test("once it is stopped, what goes wrong because of that is no finding, and what went well is none either", async () => {
  for (const end of [() => Promise.resolve(passed), () => Promise.reject(new DrillFinding("it ended"))]) {
    const stopper = new AbortController();
    const stopped = new Error("stopped");
    const work = () => {
      stopper.abort(stopped);
      return end();
    };
    await expect(findingOf(stopper.signal, work)).rejects.toBe(stopped);
    await expect(findingOf(stopper.signal, () => Promise.reject(new Error("ran")))).rejects.toBe(stopped);
  }
});

test("what does not come in its time is a finding, by the clock that nobody sets", async () => {
  let nowMs = 0;
  const clock = {
    now: () => new Date(0),
    monotonicMs: () => nowMs,
    async wait(ms: number) {
      nowMs += ms;
    },
  };
  const given = { clock, stop: new AbortController().signal, limitMs: 1_000 };
  const late = untilFound(
    given,
    () => Promise.resolve(null),
    () => `nothing after ${nowMs} ms`,
  );
  await expect(late).rejects.toThrow(new DrillFinding("nothing after 1025 ms"));
  expect(
    await untilFound(
      given,
      () => Promise.resolve(nowMs > 1_500 ? nowMs : null),
      () => "",
    ),
  ).toBe(1_525);
});
