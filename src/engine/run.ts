import { OperatorError } from "../errors.ts";
import type { Host } from "../host.ts";
import { applyPlan, type RunResult } from "./apply.ts";
import type { Listener, PlanItem } from "./events.ts";
import type { Journal } from "./journal.ts";
import { changesOf, describe, type Given, look, missingConsents, refuseForeign } from "./plan.ts";
import type { AnyStep, Consent } from "./step.ts";

/** Puts one question to the operator and gives the answer; null where nobody can be asked. */
export type Ask = ((question: string, byDefault: boolean) => Promise<boolean>) | null;

/** What an adopt-or-halt run gives: the plan it made, and what it did about it. */
export interface RunOutcome extends RunResult {
  readonly plan: readonly PlanItem[];
  readonly dryRun: boolean;
}

/** What one run is told to do. */
export interface RunOptions extends Given {
  readonly steps: readonly AnyStep[];
  readonly host: Host;
  readonly journal: Journal;
  readonly listen: Listener;
  readonly ask: Ask;
  readonly dryRun: boolean;
}

/**
 * One adopt-or-halt run: probe all, halt on anything foreign, ask what must be asked, and only then
 * write. A dry run ends with the plan.
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
    const go = await options.ask(`Make ${changes === 1 ? "this change" : `these ${changes} changes`}?`, true);
    if (!go)
      throw new OperatorError({
        exit: "pending",
        what: "Stopped at your word, before the first change.",
        remedy: "Run again to be asked again.",
      });
  }
  const result = await applyPlan({ ...options, plan });
  return { plan: items, dryRun, ...result };
}

async function settleConsents(consents: readonly Consent[], ask: Ask): Promise<void> {
  const refused: Consent[] = [];
  for (const consent of consents) {
    const allowed = ask !== null && (await ask(consent.question, consent.byDefault));
    if (!allowed) refused.push(consent);
  }
  if (refused.length === 0) return;
  throw new OperatorError({
    exit: "preflight",
    what:
      refused.length === 1
        ? "One thing requires your confirmation first."
        : `${refused.length} things require your confirmation first.`,
    why: ask === null ? "There is no terminal to ask on." : "The answer was no.",
    problems: refused.map(({ flag, question, remedy }) => ({ subject: flag, what: question, remedy })),
  });
}
