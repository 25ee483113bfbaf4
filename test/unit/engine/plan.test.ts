import { describe, expect, it } from "vitest";
import {
  changesOf,
  look,
  missingConsents,
  refuseForeign,
  describe as describePlan,
} from "../../../src/engine/plan.ts";
import type { Consent } from "../../../src/engine/step.ts";
import { OperatorError } from "../../../src/errors.ts";
import { FakeHost } from "../../support/fake-host.ts";
import { fileOf, sample, DESIRED, writeOf } from "../../support/sample-steps.ts";

const NOBODY: ReadonlySet<string> = new Set();
const CONSENT: Consent = {
  flag: "--make-it",
  question: "Make it?",
  byDefault: true,
  explicit: false,
  remedy: "Give --make-it.",
};

function boxOf(texts: Readonly<Record<string, string>>): FakeHost {
  const host = new FakeHost();
  for (const [id, text] of Object.entries(texts)) host.files.put(fileOf(id), text);
  return host;
}

describe("look", () => {
  it("probes every step, plans what may be planned, and writes nothing", async () => {
    const host = boxOf({ b: DESIRED, c: "old", d: "theirs" });
    const before = host.snapshot();
    const plan = await look(
      ["a", "b", "c", "d"].map((id) => sample(id)),
      host,
      NOBODY,
    );
    expect(plan.map(({ finding, changes }) => [finding.state, changes])).toEqual([
      ["absent", [writeOf("a")]],
      ["ours", []],
      ["drifted", [writeOf("c")]],
      ["foreign", []],
    ]);
    expect(changesOf(plan)).toEqual([writeOf("a"), writeOf("c")]);
    expect(host.writes).toEqual([]);
    expect(host.snapshot()).toEqual(before);
  });

  it("plans a foreign thing only by its claim, and only if it is named", async () => {
    const host = boxOf({ a: "theirs, claimable", b: "theirs, claimable", c: "theirs" });
    const steps = ["a", "b", "c"].map((id) => sample(id));
    const plan = await look(steps, host, new Set(["a", "c"]));
    expect(plan.map(({ changes }) => changes)).toEqual([[writeOf("a")], [], []]);
  });
});

describe("describe", () => {
  it("returns the plan as plain data, one row per step", async () => {
    const host = boxOf({ b: "old", c: "theirs, claimable" });
    const steps = [sample("a", { consent: CONSENT }), sample("b"), sample("c")];
    const rows = describePlan(await look(steps, host, NOBODY));
    expect(rows).toEqual([
      {
        step: "a",
        title: "the file of a",
        state: "absent",
        evidence: { [fileOf("a")]: "absent" },
        drift: [],
        changes: [writeOf("a")],
        consent: { flag: "--make-it", question: "Make it?", given: false },
      },
      {
        step: "b",
        title: "the file of b",
        state: "drifted",
        evidence: { [fileOf("b")]: "old" },
        drift: ["b holds other text"],
        changes: [writeOf("b")],
      },
      {
        step: "c",
        title: "the file of c",
        state: "foreign",
        evidence: { [fileOf("c")]: "theirs, claimable" },
        drift: [],
        changes: [],
        why: "The file of c is somebody else's.",
        remedy: "Move it away. Or take it over with --adopt c.",
      },
    ]);
    expect(JSON.parse(JSON.stringify(rows))).toEqual(rows);
  });
});

describe("describe, with what the operator has given", () => {
  const explicit: Consent = { ...CONSENT, flag: "--really", explicit: true };
  const steps = [sample("a", { consent: CONSENT }), sample("b", { consent: explicit })];
  const none = { consents: NOBODY, yes: false, adopted: NOBODY };

  it.each([
    [none, [false, false]],
    [{ ...none, consents: new Set(["--make-it"]) }, [true, false]],
    [{ ...none, yes: true }, [true, false]],
    [{ ...none, consents: new Set(["--really"]) }, [false, true]],
    [{ ...none, yes: true, consents: new Set(["--really"]) }, [true, true]],
  ])("says which consents are given: %o", async (given, expected) => {
    const rows = describePlan(await look(steps, new FakeHost(), NOBODY), given);
    expect(rows.map(({ consent }) => consent?.given)).toEqual(expected);
  });

  it("does not say how to adopt what is being adopted", async () => {
    const host = boxOf({ a: "theirs, claimable", b: "theirs, claimable" });
    const adopted = new Set(["a"]);
    const rows = describePlan(await look([sample("a"), sample("b")], host, adopted), { ...none, adopted });
    expect(rows.map(({ why, remedy }) => ({ why, remedy }))).toEqual([
      { why: "The file of a is somebody else's." },
      {
        why: "The file of b is somebody else's.",
        remedy: "Move it away. Or take it over with --adopt b.",
      },
    ]);
  });
});

describe("refuseForeign", () => {
  it("lists every foreign thing, and offers --adopt only for what can be claimed", async () => {
    const host = boxOf({ a: "theirs", b: "old", c: "theirs, claimable" });
    const plan = await look(
      ["a", "b", "c"].map((id) => sample(id)),
      host,
      NOBODY,
    );
    const thrown = catchFrom(() => refuseForeign(plan, NOBODY));
    expect(thrown).toMatchObject({
      exit: "foreign",
      what: "2 things on this machine block this run.",
      changed: undefined,
      problems: [
        { subject: "a", what: "The file of a is somebody else's.", remedy: "Move it away." },
        {
          subject: "c",
          what: "The file of c is somebody else's.",
          remedy: "Move it away. Or take it over with --adopt c.",
        },
      ],
    });
  });

  it("lets through what was named, and nothing that can't be claimed", async () => {
    const host = boxOf({ a: "theirs", c: "theirs, claimable" });
    const steps = [sample("a"), sample("c")];
    const adopted = new Set(["a", "c"]);
    const plan = await look(steps, host, adopted);
    expect(catchFrom(() => refuseForeign(plan, adopted))).toMatchObject({
      // The problem is the headline.
      what: "The file of a is somebody else's.",
      problems: [{ subject: "a" }],
    });
    expect(catchFrom(() => refuseForeign(plan.slice(1), adopted))).toBeNull();
  });

  it("is silent where nothing is foreign", async () => {
    const plan = await look([sample("a"), sample("b")], boxOf({ b: "old" }), NOBODY);
    expect(catchFrom(() => refuseForeign(plan, NOBODY))).toBeNull();
  });
});

describe("missingConsents", () => {
  const explicit: Consent = { ...CONSENT, flag: "--really", explicit: true };
  const steps = [sample("a", { consent: CONSENT }), sample("b", { consent: explicit })];

  it("names each that no flag has given", async () => {
    const plan = await look(steps, new FakeHost(), NOBODY);
    const by = (...flags: readonly string[]) => ({ consents: new Set(flags), yes: false });
    expect(missingConsents(plan, by())).toEqual([CONSENT, explicit]);
    expect(missingConsents(plan, by("--make-it"))).toEqual([explicit]);
    expect(missingConsents(plan, by("--make-it", "--really"))).toEqual([]);
  });

  it("takes --yes for all but the explicit ones", async () => {
    const plan = await look(steps, new FakeHost(), NOBODY);
    expect(missingConsents(plan, { consents: NOBODY, yes: true })).toEqual([explicit]);
  });

  it("needs none for a thing that is there", async () => {
    const plan = await look(steps, boxOf({ a: DESIRED, b: "old" }), NOBODY);
    expect(missingConsents(plan, { consents: NOBODY, yes: false })).toEqual([]);
  });
});

function catchFrom(act: () => void): unknown {
  try {
    act();
    return null;
  } catch (thrown) {
    if (thrown instanceof OperatorError) return thrown;
    throw thrown;
  }
}
