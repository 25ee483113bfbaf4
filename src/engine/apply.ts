import { type ExitName, OperatorError } from "../errors.ts";
import type { Host } from "../host.ts";
import type { Listener } from "./events.ts";
import type { Journal } from "./journal.ts";
import { accept, changesOf, describe, look, type Planned, refuseForeign } from "./plan.ts";
import type { AnyStep, Change, Report } from "./step.ts";

/** What a finished run did. */
export interface RunResult {
  readonly changes: readonly { readonly step: string; readonly change: Change }[];
}

/** The progress of a run. */
interface Trace {
  started: number;
  readonly done: { step: string; change: Change }[];
}

/** Exits that say more than `interrupted`. A change that fails with any other exit ends the run as `interrupted`. */
const SPECIFIC_EXITS: ReadonlySet<ExitName> = new Set([
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
 * Applies the plan. It probes each step again, applies and journals its changes, and verifies it. Then it
 * plans once more; that plan must be empty. Every error says what had been changed before it.
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
  const trace: Trace = { started: 0, done: [] };
  const { done } = trace;
  const isEmpty = changesOf(plan).length === 0;
  const { asked, giveUp } = isEmpty ? verifyAll(steps, host, listen) : { asked: [], giveUp: () => {} };
  let current: AnyStep | undefined;
  try {
    for (const [index, step] of steps.entries()) {
      current = step;
      const before = done.length;
      const startedAt = host.clock.monotonicMs();
      if (!isEmpty) await applyStep(step, { ...options, trace });
      await (asked[index] ?? step.verify(host, waitsOf(step, listen)));
      const durationMs = Math.round(host.clock.monotonicMs() - startedAt);
      listen({
        type: "step-done",
        step: step.id,
        title: step.title,
        changed: done.length > before,
        durationMs,
      });
      current = undefined;
      if (step.reprobeAfter === true && done.length > before) {
        refuseForeign(await look(steps.slice(index + 1), host, adopted), adopted);
      }
    }
    if (!isEmpty) refuseRemaining(await look(steps, host, adopted), adopted);
  } catch (thrown) {
    giveUp();
    if (current !== undefined) listen({ type: "step-failed", step: current.id, title: current.title });
    throw withChanges(thrown, trace);
  }
  return { changes: done };
}

/**
 * Asks all steps at once: with nothing to apply, none has to wait for the one before it. After `giveUp` those that
 * still poll stop, so that none of them keeps the process waiting for an answer that nobody needs.
 */
function verifyAll(
  steps: readonly AnyStep[],
  host: Host,
  listen: Listener,
): { readonly asked: readonly Promise<void>[]; readonly giveUp: () => void } {
  let isOver = false;
  const clock: Host["clock"] = {
    now: () => host.clock.now(),
    monotonicMs: () => host.clock.monotonicMs(),
    wait: async (durationMs) => {
      if (isOver) throw new Error("another step has failed");
      await host.clock.wait(durationMs);
    },
  };
  const looking = Object.create(host, { clock: { value: clock, enumerable: true } }) as Host;
  const asked = steps.map((step) => step.verify(looking, waitsOf(step, listen)));
  // The caller reports the first failure in the order of the steps; the others need no reader.
  for (const answer of asked) answer.catch(() => {});
  return { asked, giveUp: () => void (isOver = true) };
}

/** Passes on what the verification of a step waits for. */
function waitsOf({ id }: AnyStep, listen: Listener): Report {
  return (line) => listen({ type: "progress", step: id, line, waits: true });
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
    listen({ type: "change-started", step: step.id, summary: change.summary });
    await journal.around(step.id, change, async () => {
      trace.started += 1;
      await step.apply(change, host, (line) => listen({ type: "progress", step: step.id, line }));
    });
    trace.done.push({ step: step.id, change });
    listen({ type: "change-done", step: step.id, summary: change.summary });
  }
}

/** Throws (`unhealthy`) if changes remain after a run has applied its plan. */
function refuseRemaining(plan: readonly Planned[], adopted: ReadonlySet<string>): void {
  refuseForeign(plan, adopted);
  const remaining = describe(plan).filter(({ changes }) => changes.length > 0);
  if (remaining.length === 0) return;
  throw new OperatorError({
    exit: "unhealthy",
    what: "All changes were applied, but the box does not match the plan.",
    why: "A change had no effect, or something else reverted it.",
    remedy: "Check what is listed; running again is safe.",
    problems: remaining.map(({ step, drift, changes }) => ({
      subject: step,
      what: [...drift, ...changes.map(({ summary }) => `still pending: ${summary}`)].join("; "),
    })),
  });
}

function withChanges(thrown: unknown, { started, done }: Trace): unknown {
  if (!(thrown instanceof OperatorError) || started === 0) return thrown;
  const finished = [...new Set(done.map(({ step }) => step))].join(", ");
  const parts = [
    ...(done.length === 0
      ? []
      : [`done and kept: ${finished} (the journal in the base directory lists every change)`]),
    ...(started === done.length
      ? []
      : [`${done.length === 0 ? "one change" : "one more change"} was started and did not finish`]),
  ];
  const error = thrown.withChanged(`${parts.join("; ")}. Running again is safe and continues from here.`);
  return SPECIFIC_EXITS.has(error.exit)
    ? error
    : new OperatorError({ ...fieldsOf(error), exit: "interrupted" });
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
