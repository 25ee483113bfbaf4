import { describe, expect, it } from "vitest";
import type { AnyStep, Change } from "../../src/engine/step.ts";
import { OperatorError } from "../../src/errors.ts";
import type { FakeHost } from "./fake-host.ts";
import {
  type Boxes,
  type Drift,
  expectOperatorError,
  killAndRepeat,
  type Make,
  makeBoxes,
  MOMENTS,
  Outlet,
  planOf,
  type Refusal,
  type StepCases,
  type Strange,
} from "./step-boxes.ts";

export type { StepCases } from "./step-boxes.ts";

/** One law on one box. It rejects if the step breaks the law. */
export interface Law {
  readonly number: 1 | 2 | 3 | 4 | 5 | 6 | 7;
  readonly name: string;
  run(): Promise<void>;
}

/** The seven laws that every step keeps, as tests. */
export function stepLaws<Seen, C extends Change>(name: string, cases: StepCases<Seen, C>): void {
  const { id, title } = cases.makeStep();
  describe(`${name} keeps the step laws`, () => {
    it("0 it has a kebab-case id and a title", () => {
      expect(id).toMatch(/^[a-z0-9]+(-[a-z0-9]+)*$/);
      expect(title).not.toBe("");
    });
    it.each(lawsOf(cases).map((law) => [`${law.number} ${law.name}`, law] as const))("%s", (_name, law) =>
      law.run(),
    );
  });
}

/** The laws, each with its box. */
export function lawsOf<Seen, C extends Change>(cases: StepCases<Seen, C>): readonly Law[] {
  const boxes = makeBoxes(cases);
  const { absent, drifts, foreign, refusals = [] } = cases;
  return [
    ...boxes.all.map(({ label, make }): Law => ({
      number: 1,
      name: `probe and verify write nothing: ${label}`,
      run: () => lookingWritesNothing(boxes, make),
    })),
    ...(absent === null ? [] : [absentBecomesOurs(boxes)]),
    oursStays(cases.makeStep(), boxes),
    ...drifts.map((drift) => driftIsMended(boxes, drift)),
    ...foreign.map((one) => foreignStays(boxes, one)),
    ...refusals.map((one) => refusalChangesNothing(boxes, one)),
    ...boxes.mendable.map(({ label, make }): Law => ({
      number: 6,
      name: `interrupted at any write, a second run converges: ${label}`,
      run: () => survivesEveryKill(boxes, make),
    })),
    {
      number: 7,
      name: "no secret appears in any evidence, change, progress line or error",
      run: () => nothingLeaks(boxes, cases.secrets ?? (() => [])),
    },
  ];
}

async function lookingWritesNothing(boxes: Boxes, make: Make): Promise<void> {
  const host = await make();
  const before = host.snapshot();
  await boxes.probe(host).catch(expectOperatorError);
  await boxes.verify(host).catch(expectOperatorError);
  expect(host.writes).toEqual([]);
  expect(host.snapshot()).toEqual(before);
}

function absentBecomesOurs(boxes: Boxes): Law {
  return {
    number: 2,
    name: "absent: verify refuses, apply makes it ours",
    run: async () => {
      const host = await boxes.absent();
      expect(await boxes.probe(host)).toMatchObject({ state: "absent" });
      await expect(boxes.verify(host)).rejects.toBeInstanceOf(OperatorError);
      await boxes.converge(host);
      expect(host.writes).not.toEqual([]);
    },
  };
}

function oursStays(step: AnyStep, boxes: Boxes): Law {
  return {
    number: 3,
    name: "ours: an empty plan, and it works",
    run: async () => {
      const host = await boxes.ours();
      const finding = await boxes.probe(host);
      expect(finding).toMatchObject({ state: "ours" });
      expect(planOf(step, finding)).toEqual([]);
      await boxes.verify(host);
    },
  };
}

function driftIsMended(boxes: Boxes, { name, arrange, names }: Drift): Law {
  return {
    number: 4,
    name: `a drift is named and repaired: ${name}`,
    run: async () => {
      const host = await boxes.drifted(arrange);
      const finding = await boxes.probe(host);
      expect(finding).toMatchObject({ state: "drifted" });
      expect((finding.state === "drifted" ? finding.drift : []).join("\n")).toMatch(names);
      await boxes.converge(host);
    },
  };
}

function foreignStays(boxes: Boxes, { name, arrange, why, adoptable }: Strange): Law {
  return {
    number: 5,
    name: `a foreign thing stays as it is: ${name}`,
    run: async () => {
      const host = await boxes.fresh(arrange);
      const before = host.snapshot();
      const finding = await boxes.probe(host);
      expect(finding).toMatchObject({ state: "foreign", why: expect.stringMatching(why) });
      if (finding.state !== "foreign") return;
      expect(finding.remedy).not.toBe("");
      expect(finding.evidence).not.toEqual({});
      expect(finding.claim !== undefined).toBe(adoptable ?? false);
      await expect(boxes.converge(host)).rejects.toThrow("foreign");
      expect(host.snapshot()).toEqual(before);
      if (adoptable === true) await boxes.converge(host, { adopt: true });
    },
  };
}

function refusalChangesNothing(boxes: Boxes, { name, arrange, exit, what }: Refusal): Law {
  return {
    number: 5,
    name: `what can't be judged is refused: ${name}`,
    run: async () => {
      const host = await boxes.fresh(arrange);
      const before = host.snapshot();
      const thrown: unknown = await boxes.probe(host).catch((error: unknown) => error);
      expect(thrown).toBeInstanceOf(OperatorError);
      expect(thrown).toMatchObject({ exit, what: expect.stringMatching(what) });
      expect(host.snapshot()).toEqual(before);
    },
  };
}

async function survivesEveryKill(boxes: Boxes, make: Make): Promise<void> {
  const straight = await make();
  await boxes.converge(straight);
  const writes = straight.writes.length;
  expect(writes).toBeGreaterThan(0);
  for (let k = 1; k <= writes + 1; k += 1) {
    for (const moment of MOMENTS) {
      const landed = await killAndRepeat(boxes, make, { k, moment }, straight);
      expect(landed, `the kill ${moment} write ${k} of ${writes}`).toBe(k <= writes);
    }
  }
}

async function nothingLeaks(boxes: Boxes, secretsOf: (host: FakeHost) => readonly string[]): Promise<void> {
  for (const { label, make } of boxes.all) {
    const host = await make();
    const outlet = new Outlet();
    await boxes.converge(host, { outlet, adopt: true }).catch((thrown: unknown) => outlet.error(thrown));
    const secrets = [...host.generated, ...secretsOf(host)].filter(({ length }) => length > 0);
    const leaked = secrets.filter((secret) => outlet.texts.some((text) => text.includes(secret)));
    expect(leaked.length, `secrets shown on the box "${label}"`).toBe(0);
  }
}
