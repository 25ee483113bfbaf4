import { describe, expect, it } from "vitest";
import { applyPlan } from "../../../src/engine/apply.ts";
import { look } from "../../../src/engine/plan.ts";
import type { AnyStep } from "../../../src/engine/step.ts";
import { OperatorError } from "../../../src/errors.ts";
import { FakeHost } from "../../support/fake-host.ts";
import { fileOf, JOURNAL, journalOn, sample, shorten, DESIRED, writeOf } from "../../support/sample-steps.ts";

interface Trial {
  readonly host?: FakeHost;
  readonly adopt?: readonly string[];
  /** Happens between the plan and the first write. */
  readonly meanwhile?: (host: FakeHost) => void;
}

/** Plans and applies; what was thrown is given back as a value. */
async function attempt(
  steps: readonly AnyStep[],
  { host = new FakeHost(), adopt = [], meanwhile }: Trial = {},
) {
  const adopted = new Set(adopt);
  const events: string[] = [];
  const plan = await look(steps, host, adopted);
  meanwhile?.(host);
  const outcome = await applyPlan({
    plan,
    host,
    adopted,
    journal: journalOn(host),
    listen: (event) => events.push(shorten(event)),
  }).catch((thrown: unknown) => thrown);
  return { host, events, outcome };
}

function broken(exit: "usage" | "unavailable" | "unhealthy", what = "It broke."): OperatorError {
  return new OperatorError({ exit, what, why: "So.", remedy: "Repair it.", cause: new Error("deep") });
}

describe("a run that succeeds", () => {
  it("goes step by step: probe, apply, verify; and plans once more", async () => {
    const log: string[] = [];
    const { host, outcome } = await attempt([sample("a", { log }), sample("b", { log })]);
    expect(log).toEqual([
      "probe a",
      "probe b",
      "probe a",
      "apply a",
      "verify a",
      "probe b",
      "apply b",
      "verify b",
      "probe a",
      "probe b",
    ]);
    expect(outcome).toEqual({
      changes: [
        { step: "a", change: writeOf("a") },
        { step: "b", change: writeOf("b") },
      ],
    });
    expect(host.files.textOf(fileOf("b"))).toBe(DESIRED);
  });

  it("reports each event as it happens", async () => {
    const step = sample("a", {
      apply: async (host, report) => {
        report("half way");
        await host.files.writeAtomic(fileOf("a"), DESIRED, { mode: 0o644 });
      },
    });
    const host = new FakeHost();
    host.files.put(fileOf("b"), DESIRED);
    const { events } = await attempt([step, sample("b")], { host });
    expect(events).toEqual([
      "step-started a",
      "change-started a",
      "progress a",
      "change-done a",
      "step-done a",
      "step-done b",
    ]);
  });

  it("only verifies if the plan is empty: no probe, no journal, no write", async () => {
    const log: string[] = [];
    const host = new FakeHost();
    for (const id of ["a", "b"]) host.files.put(fileOf(id), DESIRED);
    const { outcome } = await attempt([sample("a", { log }), sample("b", { log })], { host });
    expect(log.slice(2)).toEqual(["verify a", "verify b"]);
    expect(outcome).toEqual({ changes: [] });
    expect(host.writes).toEqual([]);
  });

  it("applies a claim that was named", async () => {
    const host = new FakeHost();
    host.files.put(fileOf("a"), "theirs, claimable");
    const { outcome } = await attempt([sample("a")], { host, adopt: ["a"] });
    expect(outcome).toEqual({ changes: [{ step: "a", change: writeOf("a") }] });
    expect(host.files.textOf(fileOf("a"))).toBe(DESIRED);
  });
});

describe("a box that changes during the run", () => {
  it("is probed again before each step: what was created meanwhile is not changed", async () => {
    const { outcome } = await attempt([sample("a"), sample("b")], {
      meanwhile: (host) => host.files.put(fileOf("b"), DESIRED),
    });
    expect(outcome).toEqual({ changes: [{ step: "a", change: writeOf("a") }] });
  });

  it("stops before what became foreign meanwhile", async () => {
    const { host, outcome } = await attempt([sample("a"), sample("b")], {
      meanwhile: (box) => box.files.put(fileOf("b"), "theirs"),
    });
    expect(outcome).toMatchObject({ exit: "foreign", problems: [{ subject: "b" }] });
    expect((outcome as OperatorError).changed).toMatch(/done.*\ba\b/);
    expect(host.files.textOf(fileOf("b"))).toBe("theirs");
  });

  it("stops right after a step with reprobeAfter, before any other write", async () => {
    const log: string[] = [];
    const host = new FakeHost();
    host.files.put(fileOf("c"), "theirs");
    const steps = (reprobeAfter: boolean) => [
      sample("a", { reprobeAfter, log }),
      sample("b", { log }),
      sample("c", { needs: fileOf("a"), log }),
    ];
    const { outcome, events } = await attempt(steps(true), { host });
    expect(outcome).toMatchObject({ exit: "foreign", problems: [{ subject: "c" }] });
    expect(log).not.toContain("apply b");
    expect(host.files.tree.has(fileOf("b"))).toBe(false);
    expect(events.at(-1)).toBe("step-done a");

    host.files.drop(fileOf("a"));
    log.length = 0;
    await attempt(steps(false), { host });
    expect(log).toContain("apply b");
  });

  it("does not probe twice after a step with reprobeAfter that changed nothing", async () => {
    const log: string[] = [];
    const host = new FakeHost();
    host.files.put(fileOf("a"), DESIRED);
    await attempt([sample("a", { reprobeAfter: true }), sample("b", { log })], { host });
    expect(log).toEqual(["probe b", "probe b", "apply b", "verify b", "probe b"]);
  });
});

describe("a run that fails", () => {
  it("says that nothing was changed if nothing was started", async () => {
    const fail = () => {
      throw broken("unhealthy");
    };
    const host = new FakeHost();
    host.files.put(fileOf("a"), DESIRED);
    const { outcome, events } = await attempt([sample("a", { verify: fail }), sample("b")], { host });
    expect(outcome).toMatchObject({ exit: "unhealthy", changed: undefined });
    expect(events).toEqual(["step-failed a"]);
    expect(host.writes).toEqual([]);
  });

  it("says that nothing was changed if the journal can't be written, and starts nothing", async () => {
    const host = new FakeHost();
    const log: string[] = [];
    host.gate.failOnce(/journal/, broken("unavailable", "The disk is full."));
    const { outcome } = await attempt([sample("a", { log })], { host });
    expect(outcome).toMatchObject({ what: "The disk is full.", changed: undefined });
    expect(log).not.toContain("apply a");
  });

  it("says that one change was started and did not finish", async () => {
    const fail = () => {
      throw broken("unavailable");
    };
    const { outcome } = await attempt([sample("a", { apply: fail })]);
    expect(outcome).toMatchObject({ exit: "unavailable", why: "So.", remedy: "Repair it." });
    expect((outcome as OperatorError).changed).toMatch(/one change was started and did not finish/);
    expect((outcome as OperatorError).cause).toMatchObject({ message: "deep" });
  });

  it("names what was done before, and whether one more change was started", async () => {
    const fail = () => {
      throw broken("unavailable");
    };
    const begun = await attempt([sample("a"), sample("b"), sample("c", { apply: fail })]);
    expect((begun.outcome as OperatorError).changed).toMatch(
      /done and kept: a, b .*one more change was started/,
    );
    const verified = await attempt([sample("a"), sample("b", { verify: fail }), sample("c")]);
    expect((verified.outcome as OperatorError).changed).toMatch(/done and kept: a, b /);
    expect((verified.outcome as OperatorError).changed).not.toMatch(/started/);
    expect(verified.host.files.tree.has(fileOf("c"))).toBe(false);
    expect(verified.events.at(-1)).toBe("step-failed b");
  });

  it("exits as interrupted if the failure has no more specific exit", async () => {
    const fail = () => {
      throw broken("usage");
    };
    const { outcome } = await attempt([sample("a", { apply: fail })]);
    expect(outcome).toMatchObject({
      exit: "interrupted",
      what: "It broke.",
      why: "So.",
      remedy: "Repair it.",
    });
    expect((outcome as OperatorError).cause).toMatchObject({ message: "deep" });
  });

  it("lets a bug through as it is, and journals it", async () => {
    const bug = new TypeError("undefined is not a function");
    const fail = () => {
      throw bug;
    };
    const { host, outcome } = await attempt([sample("a", { apply: fail })]);
    expect(outcome).toBe(bug);
    expect(host.files.textOf(JOURNAL)).toContain("undefined is not a function");
  });
});

describe("the last plan", () => {
  it("must be empty: a change that had no effect is named", async () => {
    const idle = sample("a", { apply: () => {}, verify: () => {} });
    const { outcome } = await attempt([idle, sample("b")]);
    expect(outcome).toMatchObject({
      exit: "unhealthy",
      what: "All changes were applied, but the box does not match the plan.",
      problems: [{ subject: "a", what: "still pending: write the file of a" }],
    });
    expect((outcome as OperatorError).changed).toMatch(/done and kept: a, b /);
  });

  it("must be empty: a step that reverts an earlier one is noticed", async () => {
    const undoes = sample("b", {
      apply: async (host) => {
        await host.files.writeAtomic(fileOf("b"), DESIRED, { mode: 0o644 });
        await host.files.writeAtomic(fileOf("a"), "undone", { mode: 0o644 });
      },
    });
    const { outcome } = await attempt([sample("a"), undoes]);
    expect(outcome).toMatchObject({
      exit: "unhealthy",
      problems: [{ subject: "a", what: "a holds other text; still pending: write the file of a" }],
    });
  });

  it("must contain nothing foreign that was ours to create", async () => {
    const spoils = sample("a", {
      apply: async (host) => host.files.writeAtomic(fileOf("a"), "theirs", { mode: 0o644 }),
    });
    const { outcome } = await attempt([spoils]);
    expect(outcome).toBeInstanceOf(OperatorError);
  });
});
