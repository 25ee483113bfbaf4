import { expect } from "vitest";
import type { AnyStep, Change, Finding, StepSpec } from "../../src/engine/step.ts";
import { OperatorError } from "../../src/errors.ts";
import type { HostReader } from "../../src/host.ts";
import { FakeHost, Killed } from "./fake-host.ts";
import type { KillMoment } from "./write-gate.ts";

type Arrange = (host: FakeHost) => void | Promise<void>;

/** One way in which a thing of ours can differ from the desired state. */
export interface Drift {
  readonly name: string;
  readonly arrange: Arrange;
  /** What the finding's drift must say. */
  readonly names: RegExp;
}

/** One box on which the thing is foreign. */
export interface Strange {
  readonly name: string;
  readonly arrange: Arrange;
  readonly why: RegExp;
  /** True if the finding must have a claim for `--adopt`. */
  readonly adoptable?: boolean;
}

/** One box that the probe can't judge, and the error that it must throw. */
export interface Refusal {
  readonly name: string;
  readonly arrange: Arrange;
  readonly exit: OperatorError["exit"];
  readonly what: RegExp;
}

/** The boxes on which one step must be correct. */
export interface StepCases<Seen, C extends Change> {
  readonly makeStep: () => StepSpec<Seen, C>;
  /** The box from which all others are made; a plain FakeHost by default. */
  readonly makeHost?: () => FakeHost;
  /** Makes a box where the thing is absent; null for a thing that is never absent. */
  readonly absent: Arrange | null;
  /** Makes a box where the thing is ours. By default, the step is applied to the absent one. */
  readonly ours?: Arrange;
  /** Each one starts from "ours", breaks one thing, and says how the drift must name it. */
  readonly drifts: readonly Drift[];
  /** Each one starts from a new box. */
  readonly foreign: readonly Strange[];
  /** Boxes on which the probe must throw, since it can't judge them. Each one starts from a new box. */
  readonly refusals?: readonly Refusal[];
  /** The secrets of such a box, in addition to those that the host generated. None may leak. */
  readonly secrets?: (host: FakeHost) => readonly string[];
}

/** Everything that a step printed or returned, which an operator, a log or the journal may show. */
export class Outlet {
  readonly texts: string[] = [];

  finding(finding: Finding<unknown>): void {
    const { evidence } = finding;
    const claim = finding.state === "foreign" ? finding.claim : undefined;
    const drift = finding.state === "drifted" ? finding.drift : [];
    const why = finding.state === "foreign" ? [finding.why, finding.remedy] : [];
    this.texts.push(JSON.stringify([evidence, drift, why, claim?.evidence ?? {}]));
  }

  error(thrown: unknown): void {
    if (!(thrown instanceof Error)) {
      this.texts.push(String(thrown));
      return;
    }
    this.texts.push(thrown.message, JSON.stringify(thrown));
    if (thrown.cause !== undefined) this.error(thrown.cause);
  }
}

/** More rounds than any step needs to settle. */
const MOST_ROUNDS = 2;
/** The moments of each write at which a kill is tried. */
export const MOMENTS: readonly KillMoment[] = ["before", "during", "after"];

/** Makes one new box, with nothing recorded on it. */
export type Make = () => Promise<FakeHost>;

/** How a run is watched, and whether the operator named the step with `--adopt`. */
interface ConvergeOptions {
  readonly outlet?: Outlet;
  readonly adopt?: boolean;
}

/** The boxes of one step's cases, and runs of the step on them. */
export interface Boxes {
  readonly all: readonly { readonly label: string; readonly make: Make }[];
  /** The boxes on which a run makes changes. */
  readonly mendable: readonly { readonly label: string; readonly make: Make }[];
  readonly absent: Make;
  readonly ours: Make;
  fresh(arrange: Arrange): Promise<FakeHost>;
  drifted(arrange: Arrange): Promise<FakeHost>;
  probe(host: FakeHost): Promise<Finding<unknown>>;
  verify(host: FakeHost): Promise<void>;
  /** What the engine does: probe, plan, apply, verify, and a last plan that must be empty. */
  converge(host: FakeHost, options?: ConvergeOptions): Promise<void>;
}

/** The boxes of these cases. */
export function makeBoxes<Seen, C extends Change>(cases: StepCases<Seen, C>): Boxes {
  const step = (): AnyStep => cases.makeStep();
  const fresh = async (arrange: Arrange): Promise<FakeHost> => {
    const host = (cases.makeHost ?? (() => new FakeHost()))();
    await arrange(host);
    host.revive();
    return host;
  };
  const absent: Make = () => fresh(cases.absent ?? (() => {}));
  const ours: Make = async () => {
    if (cases.ours !== undefined) return fresh(cases.ours);
    const host = await absent();
    await converge(step(), host);
    host.revive();
    return host;
  };
  const drifted = async (arrange: Arrange): Promise<FakeHost> => {
    const host = await ours();
    await arrange(host);
    host.revive();
    return host;
  };
  const absentOnes = cases.absent === null ? [] : [{ label: "absent", make: absent }];
  const driftedOnes = cases.drifts.map(({ name, arrange }) => ({
    label: name,
    make: () => drifted(arrange),
  }));
  const strange = [...cases.foreign, ...(cases.refusals ?? [])];
  const strangeOnes = strange.map(({ name, arrange }) => ({ label: name, make: () => fresh(arrange) }));
  const mendable = [...absentOnes, ...driftedOnes];
  return {
    all: [...mendable, { label: "ours", make: ours }, ...strangeOnes],
    mendable,
    absent,
    ours,
    fresh,
    drifted,
    probe: (host) => step().probe(eyesOf(host)),
    verify: (host) => step().verify(eyesOf(host)),
    converge: (host, options) => converge(step(), host, options),
  };
}

async function converge(
  step: AnyStep,
  host: FakeHost,
  { outlet = new Outlet(), adopt = false }: ConvergeOptions = {},
): Promise<void> {
  for (let round = 1; ; round += 1) {
    const found = (await step.probe(eyesOf(host))) as Finding<unknown>;
    outlet.finding(found);
    const finding = adopt && found.state === "foreign" && found.claim !== undefined ? found.claim : found;
    const changes = planOf(step, finding);
    if (changes.length === 0) {
      expect(finding.state).toBe("ours");
      await step.verify(eyesOf(host));
      return;
    }
    expect(round, "a second plan must be empty").toBeLessThan(MOST_ROUNDS);
    for (const change of changes) {
      outlet.texts.push(JSON.stringify(change));
      await step.apply(change, host, (line) => outlet.texts.push(line));
    }
    await step.verify(eyesOf(host));
  }
}

/** One killed run, then one complete run. False if the first one had fewer writes than k. */
export async function killAndRepeat(
  boxes: Boxes,
  make: Make,
  { k, moment }: { readonly k: number; readonly moment: KillMoment },
  straight: FakeHost,
): Promise<boolean> {
  const host = await make();
  host.killAt(k, moment);
  const thrown: unknown = await boxes.converge(host).then(
    () => null,
    (error: unknown) => error,
  );
  if (!host.killed) {
    expect(thrown).toBeNull();
    return false;
  }
  expect(causesOf(thrown).some((one) => one instanceof Killed)).toBe(true);
  host.revive();
  const kept = host.heldSecrets();
  await boxes.converge(host);
  const story = `killed ${moment} write ${k}, then run again`;
  expect(host.outcome(), story).toEqual(straight.outcome());
  expect(host.heldSecrets(), `${story}: no secret on disk may be generated again`).toEqual(
    expect.arrayContaining([...kept]),
  );
  return true;
}

/** The step's plan for a finding. Throws for a foreign one, at which the engine stops. */
export function planOf(step: AnyStep, finding: Finding<unknown>): readonly Change[] {
  if (finding.state === "foreign") throw new Error(`foreign: ${finding.why}`);
  return step.plan(finding) as readonly Change[];
}

function causesOf(thrown: unknown): readonly unknown[] {
  return thrown instanceof Error ? [thrown, ...causesOf(thrown.cause)] : [thrown];
}

/** The host without its writers, in case a probe circumvents the types with a cast. */
function eyesOf(host: FakeHost): HostReader {
  const { files, system, docker, postgres, migrations, http, tls, signing, clock } = host;
  return { files, system, docker, postgres, migrations, http, tls, signing, clock };
}

/** For `catch`: any other error than an OperatorError is a bug of the step. */
export function expectOperatorError(thrown: unknown): void {
  expect(thrown).toBeInstanceOf(OperatorError);
}
