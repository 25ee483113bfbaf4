import { describe, expect, it } from "vitest";
import { effectsOf, type Evidence, type Point, pointsOf, proveKill } from "../support/effects.ts";

const JOURNAL = "write /opt/fula-master/journal.ndjson";
const START = { at: "start", pid: 7, started: "70" };
const begin = (key: string) => ({ at: "begin", key });
const end = (key: string, parts = 0) => ({ at: "end", key, parts });
const journal = (phase: string) => ({ at: "journal", phase, step: "cli", kind: "install-cli" });
const line = (phase: string) =>
  `${JSON.stringify({ phase, step: "cli", change: { kind: "install-cli" } })}\n`;
const traceOf = (...lines: readonly object[]) => lines.map((one) => `${JSON.stringify(one)}\n`).join("");
const INTENT = [begin(`${JOURNAL} #1`), journal("intent"), end(`${JOURNAL} #1`)];

it("N effects have 2N + 1 points, and a program one more: with and without the program itself", () => {
  const keys = ["mkdir /a #1", "run docker compose up #1", "give /b #1"];
  const trace = traceOf(
    START,
    ...keys.flatMap((key) => [begin(key), end(key, key.startsWith("give") ? 5 : 0)]),
  );
  const points = pointsOf(effectsOf(trace));
  expect(points).toHaveLength(2 * 3 + 1 + 1);
  expect(new Set(points.map(({ name }) => name)).size).toBe(points.length);
  expect(points.filter(({ when }) => when === "after").map(({ key }) => key)).toEqual(["give /b #1"]);
  expect(points.find(({ when, key }) => when === "during" && key === "give /b #1")?.part).toBe(3);
});

it("a run of which an effect has no end, or without any, is not a clean one", () => {
  expect(() => effectsOf(traceOf(START, begin("mkdir /a #1")))).toThrow("have not ended: mkdir /a #1");
  expect(() => effectsOf(traceOf(START))).toThrow("changed nothing");
});

describe("a kill is proven", () => {
  const key = "mkdir /a #1";
  const point = (when: Point["when"], more: Partial<Point> = {}): Point => ({ name: "", when, key, ...more });
  const kill = (when: string, of = key, children: readonly object[] = []) => ({
    at: "kill",
    when,
    key: of,
    pid: 7,
    children,
    withChildren: false,
  });
  const evidence = (trace: string, more: Partial<Evidence> = {}): Evidence => ({
    exitCode: 137,
    trace,
    journal: line("intent"),
    alive: [],
    ...more,
  });
  const before = traceOf(START, ...INTENT, kill("before"));
  const during = traceOf(START, ...INTENT, begin(key), kill("during"));
  const after = traceOf(START, ...INTENT, begin(key), end(key), kill("after"));

  it("where it landed", () => {
    proveKill(point("before"), evidence(before));
    proveKill(point("during"), evidence(during));
    proveKill(point("after"), evidence(after));
  });

  it.each([
    ["the run passed by", point("before"), evidence(traceOf(START, ...INTENT), { exitCode: 0 })],
    ["the exit code is 0", point("before"), evidence(before, { exitCode: 0 })],
    ["it was before", point("during"), evidence(before)],
    [
      "it was during mkdir /b",
      point("during"),
      evidence(traceOf(START, begin("mkdir /b #1"), kill("during", "mkdir /b #1"))),
    ],
    ["has not begun", point("during"), evidence(traceOf(START, ...INTENT, kill("during")))],
    ["has begun", point("before"), evidence(traceOf(START, ...INTENT, begin(key), kill("before")))],
    ["has ended", point("during"), evidence(traceOf(START, ...INTENT, begin(key), end(key), kill("during")))],
    [
      "chmod /a #1 had begun, too",
      point("during"),
      evidence(traceOf(START, ...INTENT, begin(key), begin("chmod /a #1"), kill("during"))),
    ],
    [
      "run x #1 was under way",
      point("before"),
      evidence(traceOf(START, ...INTENT, begin("run x #1"), kill("before"))),
    ],
    ["process 7 is still there", point("before"), evidence(before, { alive: [{ pid: 7, started: "70" }] })],
    [
      "process 8 is still there",
      point("before", { children: true }),
      evidence(before, { alive: [{ pid: 8, started: "80" }] }),
    ],
    ["there is no journal", point("before"), evidence(before, { journal: null })],
    [
      "says done cli install-cli",
      point("before"),
      evidence(before, { journal: line("intent") + line("done") }),
    ],
    ["last line is not whole", point("before"), evidence(before, { journal: line("intent").slice(0, 20) })],
  ])("not: %s", (why, one, shown) => {
    expect(() => proveKill(one, shown)).toThrow(`the kill did not land: `);
    expect(() => proveKill(one, shown)).toThrow(why);
  });

  it("in the middle of a line of the journal, half of which is there", () => {
    const half = `${JOURNAL} #2`;
    const trace = traceOf(START, ...INTENT, begin(half), kill("during", half));
    const one = { name: "", when: "during", key: half } as const;
    proveKill(one, evidence(trace, { journal: line("intent") + line("done").slice(0, 20) }));
    expect(() => proveKill(one, evidence(trace))).toThrow("the journal's last line is whole");
  });

  it("a program that was left alone may go on", () => {
    const shown = evidence(before, { alive: [{ pid: 8, started: "80" }] });
    proveKill(point("before"), shown);
  });
});
