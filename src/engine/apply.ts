import { OperatorError, type ExitName } from "../errors.ts";
import type { Host } from "../host.ts";
import type { Listener } from "./events.ts";
import type { Journal } from "./journal.ts";
import { accept, changesOf, describe, look, refuseForeign, type Planned } from "./plan.ts";
import type { AnyStep, Change } from "./step.ts";

/** What a finished run did. */
export interface RunResult {
  readonly changes: readonly { readonly step: string; readonly change: Change }[];
}

/** How far a run has come. */
interface Trace {
  begun: number;
  readonly done: { step: string; change: Change }[];
}

/** The exits that say more than "stopped part-way"; every other failure of a change becomes `interrupted`. */
const TELLING: ReadonlySet<ExitName> = new Set([
  "settings",
  "foreign",
  "drift",
  "locked",
  "unhealthy",
  "integrity",
  "unavailable",
  "newer",
]);

/**
 * Brings the box to the plan: per step it probes again, applies, journals and verifies; then it plans
 * once more, and that plan must be empty. Anything thrown says what had been changed by then.
 */
export async function applyPlan(options: {
  readonly plan: readonly Planned[];
  readonly host: Host;
  readonly adopted: ReadonlySet<string>;
  readonly journal: Journal;
  readonly listen: Listener;
}): Promise<RunResult> {
  const { plan, host, adopted, listen } = options;
  const steps = plan.map(({ step }) => step);
  const trace: Trace = { begun: 0, done: [] };
  const { done } = trace;
  const idle = changesOf(plan).length === 0;
  let current: AnyStep | undefined;
  try {
    for (const [index, step] of steps.entries()) {
      current = step;
      const before = done.length;
      if (!idle) await applyStep(step, { ...options, trace });
      await step.verify(host);
      listen({ type: "step-done", step: step.id, title: step.title, changed: done.length > before });
      current = undefined;
      if (step.reprobeAfter === true && done.length > before) {
        refuseForeign(await look(steps.slice(index + 1), host, adopted), adopted);
      }
    }
    if (!idle) refuseRest(await look(steps, host, adopted), adopted);
  } catch (thrown) {
    if (current !== undefined) listen({ type: "step-failed", step: current.id, title: current.title });
    throw withChanges(thrown, trace);
  }
  return { changes: done };
}

async function applyStep(
  step: AnyStep,
  run: {
    readonly host: Host;
    readonly adopted: ReadonlySet<string>;
    readonly journal: Journal;
    readonly listen: Listener;
    readonly trace: Trace;
  },
): Promise<void> {
  const { host, adopted, journal, listen, trace } = run;
  const finding = await step.probe(host);
  const plannable = accept(step, finding, adopted);
  if (plannable === null) {
    refuseForeign([{ step, finding, changes: [] }], adopted);
    return;
  }
  const changes = step.plan(plannable);
  if (changes.length === 0) return;
  listen({ type: "step-started", step: step.id, title: step.title, changes: changes.length });
  for (const change of changes) {
    const startedAt = host.clock.now().getTime();
    listen({ type: "change-started", step: step.id, summary: change.summary });
    await journal.around(step.id, change, async () => {
      trace.begun += 1;
      await step.apply(change, host, (line) => listen({ type: "progress", step: step.id, line }));
    });
    trace.done.push({ step: step.id, change });
    const durationMs = host.clock.now().getTime() - startedAt;
    listen({ type: "change-done", step: step.id, summary: change.summary, durationMs });
  }
}

/** A run that has just applied its plan must find nothing left to do. */
function refuseRest(rest: readonly Planned[], adopted: ReadonlySet<string>): void {
  refuseForeign(rest, adopted);
  const left = describe(rest).filter(({ changes }) => changes.length > 0);
  if (left.length === 0) return;
  throw new OperatorError({
    exit: "unhealthy",
    what: "Everything was applied, yet the box is not as planned.",
    why: "Something puts it back, or a change did not take.",
    remedy: "Look at what is named below; running again is safe.",
    problems: left.map(({ step, drift, changes }) => ({
      subject: step,
      what: [...drift, ...changes.map(({ summary }) => `still to do: ${summary}`)].join("; "),
    })),
  });
}

function withChanges(thrown: unknown, { begun, done }: Trace): unknown {
  if (!(thrown instanceof OperatorError) || begun === 0) return thrown;
  const finished = [...new Set(done.map(({ step }) => step))].join(", ");
  const parts = [
    ...(done.length === 0
      ? []
      : [`done and kept: ${finished} (the journal in the base directory has every change)`]),
    ...(begun === done.length
      ? []
      : [`one ${done.length === 0 ? "change" : "more"} was begun and did not finish`]),
  ];
  const told = thrown.withChanged(`${parts.join("; ")}. Running again is safe and goes on from here.`);
  return TELLING.has(told.exit) ? told : new OperatorError({ ...fieldsOf(told), exit: "interrupted" });
}

function fieldsOf(error: OperatorError) {
  const { what, why, remedy, changed, problems, cause } = error;
  return {
    what,
    problems,
    cause,
    ...(why === undefined ? {} : { why }),
    ...(remedy === undefined ? {} : { remedy }),
    ...(changed === undefined ? {} : { changed }),
  };
}
