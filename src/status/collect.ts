import { messageOf, OperatorError } from "../errors.ts";
import { duration } from "../units.ts";
import { type Judged, LATE, type Late, type Part } from "./part.ts";

/** A clock that no one sets: for deadlines and durations. */
export interface Monotonic {
  nowMs(): number;
  /** Calls `act` after this time. The returned function calls it off. */
  after(ms: number, act: () => void): () => void;
}

/** The monotonic clock of this process. */
export const monotonic: Monotonic = {
  nowMs: () => performance.now(),
  after: (ms, act) => {
    const timer = setTimeout(act, ms);
    return () => clearTimeout(timer);
  },
};

/** How long one question may take: to Docker, to a database, to an API. */
export const QUERY_MS = 5_000;

/** How long a part may take if it says nothing else: one question, and what goes before it. */
export const PART_DEADLINE_MS = 7_000;

/** One entry of a list of parts: its name, and how to look at it. */
export interface PartSpec {
  readonly name: string;
  /** Default: PART_DEADLINE_MS. */
  readonly deadlineMs?: number;
  /** When it was asked, if that was before the look at the parts began. */
  readonly askedAtMs?: number;
  /**
   * Looks and judges; changes nothing. Null: this node has no such part. The signal is aborted when the deadline
   * has passed. What it throws is reported as the state of the part.
   */
  look(signal: AbortSignal): Promise<Judged | null>;
}

/** A part, and how long the look at it took. */
export interface TimedPart extends Part {
  readonly durationMs: number;
}

/**
 * Looks at all parts side by side. Each has a deadline of its own, so a part that hangs delays no other one, and
 * the whole takes as long as the slowest part. Never throws: a part that fails is down or unknown, with the reason.
 */
export async function collectParts(
  specs: readonly PartSpec[],
  clock: Monotonic = monotonic,
): Promise<readonly TimedPart[]> {
  const parts = await Promise.all(specs.map((spec) => lookAt(spec, clock)));
  return parts.filter((part) => part !== null);
}

async function lookAt(spec: PartSpec, clock: Monotonic): Promise<TimedPart | null> {
  const { name, deadlineMs = PART_DEADLINE_MS } = spec;
  const startMs = spec.askedAtMs ?? clock.nowMs();
  const judged = await lookInTime(spec, deadlineMs, clock);
  return judged && { name, ...judged, durationMs: Math.round(clock.nowMs() - startMs) };
}

async function lookInTime(spec: PartSpec, deadlineMs: number, clock: Monotonic): Promise<Judged | null> {
  const controller = new AbortController();
  try {
    const judged = await within(deadlineMs, () => spec.look(controller.signal), clock);
    return judged === LATE ? lateFor(deadlineMs) : judged;
  } catch (thrown) {
    return judgeError(thrown);
  } finally {
    controller.abort();
  }
}

/** Waits for an answer for this time. What arrives later is dropped, also if it is an error. */
export async function within<Answer>(
  deadlineMs: number,
  ask: () => Promise<Answer>,
  clock: Monotonic = monotonic,
): Promise<Answer | Late> {
  let callOff = (): void => {};
  const late = new Promise<Late>((resolve) => {
    callOff = clock.after(deadlineMs, () => resolve(LATE));
  });
  try {
    return await Promise.race([ask(), late]);
  } finally {
    callOff();
  }
}

function lateFor(deadlineMs: number): Judged {
  return {
    state: "unknown",
    summary: `did not answer within ${duration(deadlineMs)}`,
    todo: "look again; if it stays so, look at its log",
    evidence: {},
  };
}

/** An error of a part: `unavailable` leaves open how it stands, any other error for the operator means that it does not work. */
export function judgeError(thrown: unknown): Judged {
  if (thrown instanceof OperatorError) {
    const { exit, what, why, remedy, problems } = thrown;
    const listed = problems.map((problem) => `${problem.subject}: ${problem.what}`);
    return {
      state: exit === "unavailable" ? "unknown" : "down",
      summary: [what, ...listed].join(" "),
      todo: remedy ?? problems[0]?.remedy ?? null,
      evidence: { error: exit, ...(why === undefined ? {} : { why }) },
    };
  }
  return {
    state: "unknown",
    summary: `could not be checked, because of a bug in fula-node: ${messageOf(thrown)}`,
    todo: "report it with the output of fula-node status --verbose",
    evidence: { stack: thrown instanceof Error ? (thrown.stack ?? "none") : "none" },
  };
}

/** A fact that is shown and not judged: its name, and how to find it out. Null: it is not known. */
export interface NoteSpec {
  readonly name: string;
  find(signal: AbortSignal): Promise<string | null>;
}

/** Finds out all notes side by side, with the same deadline as parts. What is not known says so. */
export function collectNotes(
  specs: readonly NoteSpec[],
  clock: Monotonic = monotonic,
): Promise<readonly { readonly name: string; readonly text: string }[]> {
  return Promise.all(
    specs.map(async (spec) => {
      const { name } = spec;
      const controller = new AbortController();
      try {
        const text = await within(PART_DEADLINE_MS, () => spec.find(controller.signal), clock);
        return { name, text: text === LATE || text === null ? "not known" : text };
      } catch (thrown) {
        return { name, text: `not known: ${judgeError(thrown).summary}` };
      } finally {
        controller.abort();
      }
    }),
  );
}
