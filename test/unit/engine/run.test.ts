import { describe, expect, it } from "vitest";
import type { RunEvent } from "../../../src/engine/events.ts";
import { type Ask, run, type RunOptions } from "../../../src/engine/run.ts";
import type { AnyStep, Consent } from "../../../src/engine/step.ts";
import { OperatorError } from "../../../src/errors.ts";
import { FakeHost } from "../../support/fake-host.ts";
import { fileOf, journalOn, sample, DESIRED, writeOf } from "../../support/sample-steps.ts";

function consentOf(flag: string, explicit = false): Consent {
  return { flag, question: `Allow ${flag}?`, byDefault: true, explicit, remedy: `Give ${flag}.` };
}

async function attempt(
  steps: readonly AnyStep[],
  options: Partial<Omit<RunOptions, "steps">> & { readonly host?: FakeHost } = {},
) {
  const host = options.host ?? new FakeHost();
  const events: RunEvent[] = [];
  const outcome = await run({
    steps,
    journal: journalOn(host),
    listen: (event) => events.push(event),
    ask: null,
    dryRun: false,
    yes: false,
    adopted: new Set(),
    consents: new Set(),
    ...options,
    host,
  }).catch((thrown: unknown) => thrown);
  return { host, events, outcome };
}

/** Answers in order, and keeps what was asked. */
function answers(...given: readonly boolean[]): { readonly ask: NonNullable<Ask>; readonly asked: string[] } {
  const asked: string[] = [];
  return {
    asked,
    ask: async (question, byDefault) => {
      asked.push(`${question} [${byDefault ? "Y" : "N"}]`);
      return given[asked.length - 1] ?? byDefault;
    },
  };
}

describe("a dry run", () => {
  it("shows the plan, and neither asks nor writes", async () => {
    const { ask, asked } = answers();
    const steps = [sample("a", { consent: consentOf("--make-it", true) }), sample("b")];
    const { host, events, outcome } = await attempt(steps, { dryRun: true, ask });
    expect(outcome).toMatchObject({ dryRun: true, changes: [], plan: [{ step: "a" }, { step: "b" }] });
    expect(events).toEqual([{ type: "planned", items: (outcome as { plan: unknown }).plan }]);
    expect(asked).toEqual([]);
    expect(host.writes).toEqual([]);
  });

  it("names the very changes that the real run then makes", async () => {
    const host = new FakeHost();
    host.files.put(fileOf("b"), "old");
    host.files.put(fileOf("c"), DESIRED);
    const steps = ["a", "b", "c"].map((id) => sample(id));
    const { outcome: dry } = await attempt(steps, { dryRun: true, host });
    const { outcome: real } = await attempt(steps, { host });
    const planned = (dry as Awaited<ReturnType<typeof run>>).plan.flatMap(({ step, changes }) =>
      changes.map((change) => ({ step, change })),
    );
    expect(planned).toEqual((real as Awaited<ReturnType<typeof run>>).changes);
  });

  it("stops at foreign things as the real run would", async () => {
    const host = new FakeHost();
    host.files.put(fileOf("a"), "theirs");
    const { outcome, events } = await attempt([sample("a")], { dryRun: true, host });
    expect(outcome).toMatchObject({ exit: "foreign" });
    expect(events.map(({ type }) => type)).toEqual(["planned"]);
  });
});

describe("a foreign thing", () => {
  it("stops the run before the first write and the first question", async () => {
    const { ask, asked } = answers();
    const host = new FakeHost();
    host.files.put(fileOf("b"), "theirs");
    host.files.put(fileOf("c"), "theirs, claimable");
    const steps = [sample("a", { consent: consentOf("--make-it") }), sample("b"), sample("c")];
    const { outcome } = await attempt(steps, { host, ask, adopted: new Set(["b"]) });
    expect(outcome).toMatchObject({
      exit: "foreign",
      changed: undefined,
      problems: [{ subject: "b" }, { subject: "c" }],
    });
    expect(asked).toEqual([]);
    expect(host.writes).toEqual([]);
  });

  it("is adopted if it was named", async () => {
    const host = new FakeHost();
    host.files.put(fileOf("a"), "theirs, claimable");
    const { outcome } = await attempt([sample("a")], { host, adopted: new Set(["a"]) });
    expect(outcome).toMatchObject({ changes: [{ step: "a", change: writeOf("a") }] });
  });
});

describe("consents", () => {
  const steps = [
    sample("a", { consent: consentOf("--one") }),
    sample("b", { consent: consentOf("--two", true) }),
  ];

  it("are all named if there is no terminal, and nothing is written", async () => {
    const { host, outcome } = await attempt(steps);
    expect(outcome).toMatchObject({
      exit: "preflight",
      what: "Confirmation required for 2 items.",
      why: "There is no terminal to ask on.",
      problems: [
        { subject: "--one", what: "Allow --one?", remedy: "Give --one." },
        { subject: "--two", what: "Allow --two?", remedy: "Give --two." },
      ],
    });
    expect(host.writes).toEqual([]);
  });

  it("are asked for with their default, before the first write", async () => {
    const { ask, asked } = answers();
    const { outcome } = await attempt(steps, { ask });
    expect(asked).toEqual(["Allow --one? [Y]", "Allow --two? [Y]", "Make these 2 changes? [Y]"]);
    expect(outcome).toMatchObject({ changes: [{ step: "a" }, { step: "b" }] });
  });

  it("may be refused: the run stops before the first write", async () => {
    const { ask } = answers(true, false);
    const { host, outcome } = await attempt(steps, { ask });
    expect(outcome).toMatchObject({
      exit: "preflight",
      what: "Confirmation required for 1 item.",
      why: "You answered no.",
      problems: [{ subject: "--two" }],
    });
    expect(host.writes).toEqual([]);
  });

  it("are given by --yes, except the explicit ones, which need their flag", async () => {
    const refused = await attempt(steps, { yes: true });
    expect(refused.outcome).toMatchObject({ exit: "preflight", problems: [{ subject: "--two" }] });
    expect(refused.host.writes).toEqual([]);
    const given = await attempt(steps, { yes: true, consents: new Set(["--two"]) });
    expect(given.outcome).toMatchObject({ changes: [{ step: "a" }, { step: "b" }] });
  });
});

describe("the last question", () => {
  it("stops the run when the answer is no, and nothing is written", async () => {
    const { ask, asked } = answers(false);
    const { host, outcome } = await attempt([sample("a")], { ask });
    expect(asked).toEqual(["Make this change? [Y]"]);
    expect(outcome).toBeInstanceOf(OperatorError);
    expect(outcome).toMatchObject({ exit: "pending", changed: undefined });
    expect(host.writes).toEqual([]);
  });

  it("is not asked with --yes, without a terminal, or if there is nothing to do", async () => {
    const { ask, asked } = answers();
    await attempt([sample("a")], { ask, yes: true });
    const done = new FakeHost();
    done.files.put(fileOf("a"), DESIRED);
    await attempt([sample("a")], { ask, host: done });
    expect(asked).toEqual([]);
    expect((await attempt([sample("a")])).outcome).toMatchObject({ changes: [{ step: "a" }] });
  });
});
