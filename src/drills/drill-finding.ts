import { codeOfServer, connectionFaultOf } from "../database/connection-fault.ts";
import { messageOf, OperatorError } from "../errors.ts";
import type { Clock } from "../machine/clock.ts";
import type { DrillOutcome } from "./drill.ts";

/** What a drill found wrong, from wherever it was found. It ends the drill as failed, or as skipped. */
export class DrillFinding extends Error {
  readonly todo: string | null;
  readonly state: "failed" | "skipped";

  constructor(
    summary: string,
    {
      todo = null,
      state = "failed",
      cause,
    }: { todo?: string | null; state?: "failed" | "skipped"; cause?: unknown } = {},
  ) {
    super(summary, { cause });
    this.todo = todo;
    this.state = state;
  }
}

/**
 * Runs the work of a drill. What it finds becomes the outcome, and so does what a database or a setting refuses. Throws the
 * reason of `stop` once that is aborted, whatever else goes wrong then, and bugs.
 */
export async function findingOf(
  stop: AbortSignal,
  work: () => Promise<DrillOutcome>,
  evidence: Readonly<Record<string, string>> = {},
): Promise<DrillOutcome> {
  try {
    stop.throwIfAborted();
    const outcome = await work();
    stop.throwIfAborted();
    return outcome;
  } catch (thrown) {
    stop.throwIfAborted();
    return { ...outcomeOf(thrown), evidence };
  }
}

function outcomeOf(thrown: unknown): Omit<DrillOutcome, "evidence"> {
  if (thrown instanceof DrillFinding)
    return { state: thrown.state, summary: thrown.message, todo: thrown.todo };
  if (thrown instanceof OperatorError) {
    const summary = [thrown.what, thrown.why].filter((part) => part !== undefined).join(" ");
    return { state: "failed", summary, todo: thrown.remedy ?? null };
  }
  const isNoSpace = codeOfServer(thrown) === "53100";
  if (isNoSpace || codeOfServer(thrown) !== "" || connectionFaultOf(thrown) !== null)
    return {
      state: "failed",
      summary: `PostgreSQL ${isNoSpace ? "has no space" : "refused a statement of the drill"}: ${messageOf(thrown)}`,
      todo: isNoSpace
        ? "Make space where PostgreSQL keeps its data, then run the drill again."
        : "Read what PostgreSQL says, and its log; fula-node status shows how the database stands.",
    };
  throw thrown;
}

/** How often a drill looks again at what it waits for. */
const LOOK_MS = 25;

/**
 * Waits until `look` finds something. Throws what `late` says after `limitMs`, and the reason of `stop` once that is
 * aborted.
 */
export async function untilFound<Found>(
  { clock, stop, limitMs }: { readonly clock: Clock; readonly stop: AbortSignal; readonly limitMs: number },
  look: () => Promise<Found | null>,
  late: () => string,
): Promise<Found> {
  const deadline = clock.monotonicMs() + limitMs;
  for (;;) {
    stop.throwIfAborted();
    const found = await look();
    if (found !== null) return found;
    if (clock.monotonicMs() > deadline) throw new DrillFinding(late());
    await clock.wait(LOOK_MS);
  }
}
