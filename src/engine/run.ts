import { OperatorError } from "../errors.ts";
import { countOf } from "../units.ts";
import type { Host } from "../host.ts";
import { applyPlan, type RunResult } from "./apply.ts";
import type { Listener, PlanItem } from "./events.ts";
import type { Journal } from "./journal.ts";
import { changesOf, describe, type Given, look, missingConsents, refuseForeign } from "./plan.ts";
import type { AnyStep, Consent } from "./step.ts";

/** Asks the operator one question and returns the answer. Null if there is no terminal to ask on. */
export type Ask = ((question: string, byDefault: boolean) => Promise<boolean>) | null;

/** The result of a run: the plan, and the changes that were made. */
export interface RunOutcome extends RunResult {
  readonly plan: readonly PlanItem[];
  readonly dryRun: boolean;
}

/** The input of one run. */
export interface RunOptions extends Given {
  readonly steps: readonly AnyStep[];
  readonly host: Host;
  readonly journal: Journal;
  readonly listen: Listener;
  readonly ask: Ask;
  readonly dryRun: boolean;
}

/**
 * One run: probes every step, stops at anything foreign, asks for the missing consents, and only then
 * writes. A dry run ends after the plan.
 */
export async function run(options: RunOptions): Promise<RunOutcome> {
  const { steps, host, listen, adopted, dryRun } = options;
  const plan = await look(steps, host, adopted);
  const items = describe(plan, options);
  listen({ type: "planned", items });
  refuseForeign(plan, adopted);
  if (dryRun) return { plan: items, dryRun, changes: [] };
  await settleConsents(missingConsents(plan, options), options.ask);
  const changes = changesOf(plan).length;
  if (changes > 0 && !options.yes && options.ask !== null) {
    const confirmed = await options.ask(
      `Make ${changes === 1 ? "this change" : `these ${changes} changes`}?`,
      true,
    );
    if (!confirmed)
      throw new OperatorError({
        exit: "pending",
        what: "You answered no. Stopped before the first change.",
        remedy: "Run the command again if you want to make the changes.",
      });
  }
  const result = await applyPlan({ ...options, plan });
  return { plan: items, dryRun, ...result };
}

async function settleConsents(consents: readonly Consent[], ask: Ask): Promise<void> {
  const refused: Consent[] = [];
  for (const consent of consents) {
    const isAllowed = ask !== null && (await ask(consent.question, consent.byDefault));
    if (!isAllowed) refused.push(consent);
  }
  if (refused.length === 0) return;
  throw new OperatorError({
    exit: "preflight",
    what: `Confirmation required for ${countOf(refused.length, "item")}.`,
    why: ask === null ? "There is no terminal to ask on." : "You answered no.",
    problems: refused.map(({ flag, question, remedy }) => ({ subject: flag, what: question, remedy })),
  });
}
