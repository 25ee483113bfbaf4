import { describe, expect, it } from "vitest";
import type { Drill, DrillOutcome } from "../../../src/drills/drill.ts";
import { DRILL_FREE_BYTES, type DrillResult, runDrills } from "../../../src/drills/run/run-drills.ts";
import { OperatorError } from "../../../src/errors.ts";
import type { InstalledMaster } from "../../../src/join/installed-node.ts";
import { masterLayout } from "../../../src/settings/layout.ts";
import type { Monotonic } from "../../../src/status/collect.ts";
import { FakeHost } from "../../support/fake-host.ts";

const PASSED: DrillOutcome = { state: "passed", summary: "held", todo: null, evidence: {} };
const master: InstalledMaster = { layout: masterLayout("/opt/fula-master"), values: () => undefined };

/** What happened, in order; a drill that makes a thing and removes it; and time that passes only by `pass`. */
function stage() {
  const trace: string[] = [];
  const made = new Set<string>();
  const host = new FakeHost();
  let nowMs = 0;
  const timers = new Map<() => void, number>();
  const clock: Monotonic = {
    nowMs: () => nowMs,
    after(ms, act) {
      timers.set(act, nowMs + ms);
      return () => void timers.delete(act);
    },
  };
  const pass = async (ms: number): Promise<void> => {
    // What was begun gets as far as it can.
    await new Promise((resolve) => setImmediate(resolve));
    nowMs += ms;
    for (const [act, dueMs] of timers)
      if (dueMs <= nowMs) {
        timers.delete(act);
        act();
      }
    await new Promise((resolve) => setImmediate(resolve));
  };
  const stop = new AbortController();
  const drill = (id: string, run: Drill<{ host: FakeHost }>["run"] = async () => PASSED) =>
    ({
      id,
      title: `title of ${id}`,
      proves: "that it holds",
      isScheduled: true,
      deadlineMs: 1_000,
      run: async (...given) => {
        trace.push(`run ${id}`);
        made.add(id);
        return run(...given);
      },
      cleanUp: async () => {
        trace.push(`clean ${id}`);
        return made.delete(id) ? [`the thing of ${id}`] : [];
      },
    }) satisfies Drill<{ host: FakeHost }>;
  const ended: DrillResult[] = [];
  const listener = { started: () => {}, said: () => {}, ended: (one: DrillResult) => void ended.push(one) };
  const start = (...drills: readonly Drill<{ host: FakeHost }>[]) =>
    runDrills(drills, { deps: { host }, master, stop: stop.signal, listener, clock });
  return { trace, made, host, pass, stop, drill, start, ended, waiting: timers };
}

/** Waits until `stop` is aborted, and then throws, as a drill shall. */
const untilStopped: Drill<{ host: FakeHost }>["run"] = (_deps, { stop }) =>
  new Promise((_resolve, reject) => {
    stop.addEventListener("abort", () => reject(new Error("stopped")), { once: true });
  });

describe("runDrills", () => {
  it("cleans up before and after each drill, one drill after the other", async () => {
    const { trace, drill, start, ended, waiting } = stage();
    const { results, stopped } = await start(drill("D1"), drill("D2"));
    expect(trace).toEqual(["clean D1", "run D1", "clean D1", "clean D2", "run D2", "clean D2"]);
    expect(stopped).toBeNull();
    expect(results.map(({ id, state, leftovers, cleaned }) => [id, state, leftovers, cleaned])).toEqual([
      ["D1", "passed", [], ["the thing of D1"]],
      ["D2", "passed", [], ["the thing of D2"]],
    ]);
    expect(ended).toEqual(results);
    expect([...waiting]).toEqual([]);
  });

  it("removes what a killed run left before it runs, and says so", async () => {
    const { made, drill, start } = stage();
    made.add("D1");
    const { results } = await start(drill("D1"));
    expect(results[0]).toMatchObject({ state: "passed", leftovers: ["the thing of D1"] });
  });

  it("a drill that throws has failed, with the words and the remedy of the error, and the next one runs", async () => {
    const { made, drill, start } = stage();
    const error = new OperatorError({
      exit: "unavailable",
      what: "The database is down.",
      remedy: "Start it.",
    });
    const { results } = await start(
      drill("D1", () => Promise.reject(error)),
      drill("D2", () => Promise.reject(new Error("oops"))),
      drill("D3"),
    );
    expect(results).toMatchObject([
      { state: "failed", summary: "The database is down.", todo: "Start it." },
      { state: "failed", summary: expect.stringContaining("bug in fula-node: oops") as string },
      { state: "passed" },
    ]);
    expect([...made]).toEqual([]);
  });

  it("stops a drill at its deadline: it has failed, and is cleaned up", async () => {
    const { made, pass, drill, start } = stage();
    const run = start(drill("D1", untilStopped), drill("D2"));
    await pass(999);
    expect([...made]).toEqual(["D1"]);
    await pass(1);
    const { results } = await run;
    expect(results).toMatchObject([
      { state: "failed", summary: "did not end within 1.0 s" },
      { state: "passed" },
    ]);
    expect([...made]).toEqual([]);
  });

  it("does not wait for ever for a drill that takes no notice", async () => {
    const { made, pass, drill, start, waiting } = stage();
    const run = start(drill("D1", () => new Promise<never>(() => {})));
    await pass(1_000);
    await pass(10_000);
    const { results } = await run;
    expect(results).toMatchObject([{ state: "failed", summary: "did not end within 1.0 s" }]);
    expect([...made]).toEqual([]);
    expect([...waiting]).toEqual([]);
  });

  it("a signal stops the drill that runs, cleans up, and begins no other one", async () => {
    const { trace, made, pass, stop, drill, start } = stage();
    const run = start(drill("D1"), drill("D2", untilStopped), drill("D3"));
    await pass(0);
    stop.abort();
    expect(await run).toMatchObject({
      results: [{ id: "D1", state: "passed" }],
      stopped: { drill: { id: "D2", fault: null } },
    });
    expect([...made]).toEqual([]);
    expect(trace).not.toContain("run D3");
  });

  it.each(["passes nevertheless", "takes no notice"])("a signal stops also a drill that %s", async (how) => {
    const { made, pass, stop, drill, start } = stage();
    const deaf = how === "takes no notice";
    const obstinate = drill("D1", (_deps, context) =>
      deaf
        ? new Promise<never>(() => {})
        : new Promise((resolve) => context.stop.addEventListener("abort", () => resolve(PASSED))),
    );
    const run = start(obstinate);
    await pass(0);
    stop.abort();
    if (deaf) await pass(10_000);
    expect(await run).toMatchObject({ results: [], stopped: { drill: { id: "D1" } } });
    expect([...made]).toEqual([]);
  });

  it("a signal between two drills, or before the first one, begins none", async () => {
    const { trace, stop, drill, start } = stage();
    stop.abort();
    expect(await start(drill("D1"))).toEqual({ results: [], stopped: { drill: null } });
    expect(trace).toEqual([]);
  });

  it("a signal while it cleans up after an earlier run begins no drill, and cleans up to the end", async () => {
    const { trace, made, stop, drill, start } = stage();
    made.add("D1");
    const one = drill("D1");
    const slow = {
      ...one,
      cleanUp: async () => {
        stop.abort();
        return one.cleanUp();
      },
    };
    expect(await start(slow, drill("D2"))).toMatchObject({ results: [], stopped: { drill: { id: "D1" } } });
    expect([...made]).toEqual([]);
    expect(trace).toEqual(["clean D1", "clean D1"]);
  });

  it("a signal while it cleans up after its end: its result counts, and no other drill begins", async () => {
    const { trace, made, stop, drill, start } = stage();
    const one = drill("D1");
    const slow = {
      ...one,
      cleanUp: async () => {
        if (made.has("D1")) stop.abort();
        return one.cleanUp();
      },
    };
    expect(await start(slow, drill("D2"))).toMatchObject({
      results: [{ id: "D1", state: "passed", cleaned: ["the thing of D1"] }],
      stopped: { drill: null },
    });
    expect(trace).toEqual(["clean D1", "run D1", "clean D1"]);
  });

  it("a drill that can't clean up has failed, whatever it found; one that can't before does not run", async () => {
    const { trace, drill, start } = stage();
    let calls = 0;
    const after = {
      ...drill("D3"),
      cleanUp: async () => {
        calls += 1;
        if (calls === 2) throw new OperatorError({ exit: "unavailable", what: "It is in use." });
        return [];
      },
    };
    const before = {
      ...drill("D4"),
      cleanUp: () => Promise.reject(new OperatorError({ exit: "unavailable", what: "It is in use." })),
    };
    const { results } = await start(after, before);
    expect(results).toMatchObject([
      {
        state: "failed",
        summary: "it could not clean up: It is in use.",
        todo: expect.stringContaining("D3") as string,
      },
      { state: "failed", summary: "not run: It is in use", todo: "fula-node join-as-master" },
    ]);
    expect(trace).not.toContain("run D4");
  });

  it("a stopped drill that can't clean up says so", async () => {
    const { stop, drill, start } = stage();
    let calls = 0;
    const one = {
      ...drill("D1", async () => {
        stop.abort();
        return PASSED;
      }),
      cleanUp: async () => {
        calls += 1;
        if (calls === 2) throw new OperatorError({ exit: "unavailable", what: "It is in use." });
        return [];
      },
    };
    expect(await start(one)).toMatchObject({
      stopped: { drill: { id: "D1", fault: "it could not clean up: It is in use." } },
    });
  });

  it("gives up a clean-up that hangs", async () => {
    const { pass, drill, start } = stage();
    const run = start({ ...drill("D1"), cleanUp: () => new Promise<never>(() => {}) });
    await pass(60_000);
    expect((await run).results).toMatchObject([
      {
        state: "failed",
        summary: expect.stringContaining(
          "not run: it could not clean up after an earlier run: no answer within 1 min 0 s",
        ) as string,
      },
    ]);
  });

  it("what is down has one remedy for all: that of D1, if it ran", async () => {
    const { drill, start } = stage();
    const down = (id: string) => ({
      ...drill(id),
      cleanUp: () =>
        Promise.reject(
          new OperatorError({ exit: "unavailable", what: "PostgreSQL is down.", remedy: "Check it." }),
        ),
    });
    const stack = drill(
      "D1",
      async () => ({ ...PASSED, state: "failed", todo: "systemctl start docker" }) as const,
    );
    const { results } = await start(stack, down("D3"), down("D4"));
    expect(results.slice(1).map(({ summary, todo }) => [summary, todo])).toEqual(
      Array.from({ length: 2 }, () => ["not run: PostgreSQL is down", "systemctl start docker"]),
    );
  });

  it("without space no drill that writes begins, and says why", async () => {
    const { trace, host, drill, start } = stage();
    host.files.freeBytes = DRILL_FREE_BYTES - 1;
    const { results } = await start(drill("D1"), drill("D2"), drill("D3"));
    expect(results).toMatchObject([
      { state: "passed" },
      { state: "passed" },
      {
        state: "failed",
        summary:
          "not run: 256.0 MB free on the disk of /opt/fula-master, and a drill that writes needs 256.0 MB",
        todo: "free some space there, then run it again",
      },
    ]);
    expect(trace).not.toContain("run D3");
  });
});
