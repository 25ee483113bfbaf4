import { OperatorError, type Problem } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { countOf } from "../units.ts";
import type { PlanItem } from "./events.ts";
import type { AnyStep, Change, Consent, Finding, Plannable } from "./step.ts";

/** A step with what it found and what it would change. */
export interface Planned {
  readonly step: AnyStep;
  /** What the probe found, before `--adopt` is considered. */
  readonly finding: Finding<unknown>;
  readonly changes: readonly Change[];
}

/** What the operator has confirmed already. */
export interface Given {
  /** Flags that give a consent, for example `--provision-writer`. */
  readonly consents: ReadonlySet<string>;
  /** True for `--yes`: gives every consent that is not explicit. */
  readonly yes: boolean;
  /** Ids of the steps that the operator named with `--adopt`. */
  readonly adopted: ReadonlySet<string>;
}

const NOTHING_GIVEN: Given = { consents: new Set(), yes: false, adopted: new Set() };

/** The finding that may be planned. Null for a foreign thing, unless the operator adopts it by name. */
export function accept(
  step: AnyStep,
  finding: Finding<unknown>,
  adopted: ReadonlySet<string>,
): Plannable<unknown> | null {
  if (finding.state !== "foreign") return finding;
  return adopted.has(step.id) && finding.claim !== undefined ? finding.claim : null;
}

/** Probes all steps at the same time and plans each. Foreign things get no changes. Writes nothing. */
export async function look(
  steps: readonly AnyStep[],
  host: HostReader,
  adopted: ReadonlySet<string>,
): Promise<readonly Planned[]> {
  const findings = await Promise.all(steps.map((step) => step.probe(host)));
  return steps.map((step, index) => {
    const finding = findings[index] as Finding<unknown>;
    const plannable = accept(step, finding, adopted);
    return { step, finding, changes: plannable === null ? [] : step.plan(plannable) };
  });
}

/** The plan as plain data, for people, `--json` and tests. Each consent says whether it is given. */
export function describe(plan: readonly Planned[], given: Given = NOTHING_GIVEN): readonly PlanItem[] {
  return plan.map(({ step, finding, changes }) => ({
    step: step.id,
    title: step.title,
    state: finding.state,
    evidence: finding.evidence,
    drift: finding.state === "drifted" ? finding.drift : [],
    ...("settings" in finding && finding.settings !== undefined ? { settings: finding.settings } : {}),
    changes,
    ...(finding.state === "foreign" ? { why: finding.why } : {}),
    ...(finding.state === "foreign" && accept(step, finding, given.adopted) === null
      ? { remedy: remedyOf(step, finding) }
      : {}),
    ...(finding.state === "absent" && finding.consent !== undefined
      ? { consent: describeConsent(finding.consent, given) }
      : {}),
    ...describeReplacements(accept(step, finding, given.adopted), given),
  }));
}

/** Throws (`foreign`) if there is any foreign thing that is not adopted. Lists all of them. */
export function refuseForeign(plan: readonly Planned[], adopted: ReadonlySet<string>): void {
  const problems: Problem[] = [];
  const reasons: (string | undefined)[] = [];
  for (const { step, finding } of plan) {
    if (finding.state !== "foreign" || accept(step, finding, adopted) !== null) continue;
    reasons.push(finding.whyRefused);
    problems.push({ subject: step.id, what: finding.why, remedy: remedyOf(step, finding) });
  }
  const [first] = problems;
  if (first === undefined) return;
  throw new OperatorError({
    exit: "foreign",
    // One problem is the message itself.
    what:
      problems.length === 1
        ? first.what
        : `${countOf(problems.length, "thing")} on this machine block this run.`,
    why: (problems.length === 1 ? reasons[0] : undefined) ?? GENERAL_REASON,
    problems,
  });
}

const GENERAL_REASON =
  "fula-node did not create what is listed, or can't change it safely. Continuing could overwrite someone else's work or data.";

/** The consents that the plan needs and that are not given yet. */
export function missingConsents(
  plan: readonly Planned[],
  given: Pick<Given, "consents" | "yes">,
): readonly Consent[] {
  return plan.flatMap(({ step, finding, changes }) => {
    if (changes.length === 0) return [];
    // A consent of an adopted thing counts only if it is adopted: otherwise the run has halted before.
    const plannable = finding.state === "foreign" ? (finding.claim ?? null) : accept(step, finding, NOBODY);
    return consentsOf(plannable).filter((consent) => !isGiven(consent, given));
  });
}

const NOBODY: ReadonlySet<string> = new Set();

function consentsOf(plannable: Plannable<unknown> | null): readonly Consent[] {
  if (plannable?.state === "drifted") return plannable.consents ?? [];
  return plannable?.state === "absent" && plannable.consent !== undefined ? [plannable.consent] : [];
}

function describeReplacements(
  plannable: Plannable<unknown> | null,
  given: Given,
): Pick<PlanItem, "confirmations"> {
  if (plannable?.state !== "drifted" || plannable.consents === undefined) return {};
  return { confirmations: plannable.consents.map((consent) => describeConsent(consent, given)) };
}

/** All changes of a plan, in one list. */
export function changesOf(plan: readonly Planned[]): readonly Change[] {
  return plan.flatMap(({ changes }) => changes);
}

function describeConsent(consent: Consent, given: Given): NonNullable<PlanItem["consent"]> {
  return { flag: consent.flag, question: consent.question, given: isGiven(consent, given) };
}

/** Whether a consent is given. The printed plan and the run both use this rule. */
function isGiven({ flag, explicit }: Consent, { consents, yes }: Pick<Given, "consents" | "yes">): boolean {
  return consents.has(flag) || (yes && !explicit);
}

function remedyOf(step: AnyStep, finding: Finding<unknown> & { state: "foreign" }): string {
  return finding.claim === undefined
    ? finding.remedy
    : `${finding.remedy} Or take it over with --adopt ${step.id}.`;
}
