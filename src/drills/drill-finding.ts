import { codeOfServer, connectionFaultOf } from "../database/connection-fault.ts";
import { messageOf } from "../errors.ts";
import type { Clock } from "../machine/clock.ts";
import type { DrillOutcome } from "./drill.ts";

/** What a drill found wrong, from wherever it was found. It ends the drill as failed, or as skipped. */
export class DrillFinding extends Error {
  readonly todo: string | null;
  readonly state: "failed" | "skipped";

  constructor(
    summary: string,
    {
      todo = "run it again with --verbose; if it fails again, report it with the output of fula-node drill --json",
      state = "failed",
      cause,
    }: { todo?: string | null; state?: "failed" | "skipped"; cause?: unknown } = {},
  ) {
    super(summary, { cause });
    this.todo = todo;
    this.state = state;
  }
}

/** What a drill found, with the evidence that it had collected until then. */
export async function outcomeOf(
  evidence: DrillOutcome["evidence"],
  prove: () => Promise<Pick<DrillOutcome, "state" | "summary"> & Partial<DrillOutcome>>,
): Promise<DrillOutcome> {
  try {
    return { todo: null, evidence, ...(await prove()) };
  } catch (thrown) {
    if (!(thrown instanceof DrillFinding)) throw thrown;
    return { state: thrown.state, summary: thrown.message, todo: thrown.todo, evidence };
  }
}

/**
 * Runs the work of a drill. What it finds becomes the outcome, and so does what PostgreSQL refuses. Throws every other error, and
 * the reason of `stop` once that is aborted, whatever else goes wrong then.
 */
export async function findingOf(stop: AbortSignal, work: () => Promise<DrillOutcome>): Promise<DrillOutcome> {
  try {
    stop.throwIfAborted();
    const outcome = await outcomeOf({}, work);
    stop.throwIfAborted();
    return outcome;
  } catch (thrown) {
    stop.throwIfAborted();
    return ofDatabase(thrown);
  }
}

const evidence = {};

/** The sessions with a lock that stops even a look. */
const HOLDERS =
  "SELECT pid, usename, application_name, xact_start, relation::regclass FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE granted AND mode = 'AccessExclusiveLock' AND relation IS NOT NULL;";

function ofDatabase(thrown: unknown): DrillOutcome {
  const code = codeOfServer(thrown);
  if (code === "53100")
    return {
      state: "failed",
      summary: `PostgreSQL has no space: ${messageOf(thrown)}`,
      todo: "make space on the disk of PostgreSQL's data, then run the drill again",
      evidence,
    };
  if (code === "55P03" || code === "57014")
    return {
      state: "failed",
      summary: `${code === "55P03" ? "a session holds a lock on a table" : "a statement took too long, or somebody ended it"}: ${messageOf(thrown)}`,
      todo: `wait until that session ends, or end it, then run the drill again. To see who holds a lock, with psql: ${HOLDERS}`,
      evidence,
    };
  if (code !== "" || connectionFaultOf(thrown) !== null)
    return {
      state: "failed",
      summary: `PostgreSQL did not do what the drill asked: ${messageOf(thrown)}`,
      todo: "look at fula-node status and at PostgreSQL's log, then run the drill again",
      evidence,
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
