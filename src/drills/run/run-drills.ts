import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import { judgeError, type Monotonic, monotonic, within } from "../../status/collect.ts";
import { isDatabaseElsewhere } from "../../settings/postgres-target.ts";
import { LATE, REPAIR_MASTER } from "../../status/part.ts";
import { decimalBytes, duration } from "../../units.ts";
import type { Drill, DrillContext, DrillOutcome } from "../drill.ts";

/** How one drill went. */
export interface DrillResult extends DrillOutcome {
  readonly id: string;
  readonly title: string;
  readonly proves: string;
  /** When it ended, as ISO text. */
  readonly at: string;
  readonly durationMs: number;
  /** What a run before this one had left, and this one removed. */
  readonly leftovers: readonly string[];
  /** What this run removed of its own. */
  readonly cleaned: readonly string[];
}

/** The drill in which a run was stopped. */
export interface StoppedDrill {
  readonly id: string;
  readonly title: string;
  /** Why something of it may still be there, in words; null if it has cleaned up. */
  readonly fault: string | null;
}

/** What a run of drills found. */
export interface DrillRun {
  readonly results: readonly DrillResult[];
  /** Null if the run was not stopped. `drill`: the one that it was in; null between two. */
  readonly stopped: { readonly drill: StoppedDrill | null } | null;
}

/** What a run tells whoever shows it. */
export interface DrillListener {
  started(drill: Pick<Drill, "id" | "title">): void;
  said(drill: Pick<Drill, "id" | "title">, line: string): void;
  ended(result: DrillResult): void;
}

/** What is not free on the disk of the base directory can't be used by a drill: less than this, and none begins. */
export const DRILL_FREE_BYTES = 256 * 1000 ** 2;

/** So long a drill may take to stop after its time, or after a signal. */
const GRACE_MS = 10_000;
/** The longest time that a drill may take to clean up. */
const CLEAN_UP_MS = 60_000;

/** What each run of a drill gets. */
interface Given<Deps> {
  readonly deps: Deps;
  readonly master: DrillContext["master"];
  readonly stop: AbortSignal;
  readonly listener: DrillListener;
  readonly clock: Monotonic;
  /** What to do about a stack that does not work, if D1 found that before. */
  readonly stackTodo: () => string | null;
}

/**
 * Runs drills, one after the other: cleans up what a killed run left, runs the drill until its deadline or until `stop`, and
 * cleans up again, also after an error. After `stop` it cleans up and begins no other drill. Never throws for what a drill
 * does: a drill that throws has failed, with the words of its error.
 */
export async function runDrills<Deps extends { readonly host: HostReader }>(
  drills: readonly Drill<Deps>[],
  given: Omit<Given<Deps>, "clock" | "stackTodo"> & { readonly clock?: Monotonic },
): Promise<DrillRun> {
  const results: DrillResult[] = [];
  const stackTodo = () => results.find(({ id, state }) => id === "D1" && state === "failed")?.todo ?? null;
  const whole: Given<Deps> = { clock: monotonic, stackTodo, ...given };
  for (const drill of drills) {
    if (given.stop.aborted) return { results, stopped: { drill: null } };
    const ended = await runOne(drill, whole);
    if ("fault" in ended) return { results, stopped: { drill: ended } };
    results.push(ended);
    given.listener.ended(ended);
  }
  return { results, stopped: null };
}

async function runOne<Deps extends { readonly host: HostReader }>(
  drill: Drill<Deps>,
  given: Given<Deps>,
): Promise<DrillResult | StoppedDrill> {
  const { deps, listener, clock } = given;
  const { id, title, proves } = drill;
  const startMs = clock.nowMs();
  listener.started(drill);
  const before = await cleanUp(drill, given);
  const isClean = before.fault === null;
  const outcome = isClean ? await tryDrill(drill, given) : failed(notRun(before.fault, given));
  const after = isClean ? await cleanUp(drill, given) : { removed: [], fault: null };
  const left = leaving(after.fault);
  if (outcome === STOPPED) return { id, title, fault: left?.summary ?? null };
  return {
    id,
    title,
    proves,
    ...withFault(outcome, left),
    at: deps.host.clock.now().toISOString(),
    durationMs: Math.round(clock.nowMs() - startMs),
    leftovers: before.removed,
    cleaned: after.removed,
  };
}

const STOPPED = Symbol("stopped");

/** Why something is wrong, and what to do about it. */
type Fault = Pick<DrillOutcome, "summary" | "todo">;

/** `isUnavailable`: what it would ask is down. */
interface CleanUpFault extends Fault {
  readonly isUnavailable: boolean;
}

/** How the summary of a drill begins that did not begin. */
export const NOT_RUN = "not run: ";
/** These write nothing, so they need no space. */
const WRITE_NOTHING: readonly string[] = ["D1", "D2"];

function failed({ summary, todo }: Fault, evidence: DrillOutcome["evidence"] = {}): DrillOutcome {
  return { state: "failed", summary, todo, evidence };
}

/** A drill that could not look for what an earlier run left: nothing of this one is there. One cause has one remedy. */
function notRun(
  { summary, todo, isUnavailable }: CleanUpFault,
  { stackTodo, master }: Pick<Given<unknown>, "stackTodo" | "master">,
): Fault {
  const why = isUnavailable ? summary : `it could not clean up after an earlier run: ${summary}`;
  const repair = isDatabaseElsewhere(master.values) ? todo : REPAIR_MASTER;
  return {
    summary: `${NOT_RUN}${why.replace(/\.$/, "")}`,
    todo: isUnavailable ? (stackTodo() ?? repair) : todo,
  };
}

/** A drill that leaves something behind has failed, whatever it found. */
function withFault(outcome: DrillOutcome, fault: Fault | null): DrillOutcome {
  if (fault === null) return outcome;
  const { state, summary, todo, evidence } = outcome;
  if (state === "failed") return failed({ summary: `${summary}; ${fault.summary}`, todo }, evidence);
  return failed(fault, evidence);
}

async function tryDrill<Deps extends { readonly host: HostReader }>(
  drill: Drill<Deps>,
  given: Given<Deps>,
): Promise<DrillOutcome | typeof STOPPED> {
  const { deps, master, stop, listener, clock } = given;
  const time = new AbortController();
  const signal = AbortSignal.any([stop, time.signal]);
  const late = failed({ summary: `did not end within ${duration(drill.deadlineMs)}`, todo: LOOK });
  const callOff: (() => void)[] = [clock.after(drill.deadlineMs, () => time.abort())];
  /** A drill that takes no notice of `stop` must not keep the others waiting. */
  const deaf = new Promise<DrillOutcome>((resolve) => {
    const wait = () => callOff.push(clock.after(GRACE_MS, () => resolve(late)));
    signal.addEventListener("abort", wait, { once: true });
  });
  try {
    const lacking = WRITE_NOTHING.includes(drill.id)
      ? null
      : await whyNoSpace(deps.host, master.layout.baseDir);
    if (lacking !== null) return failed(lacking);
    if (stop.aborted) return STOPPED;
    const report = (line: string) => listener.said(drill, line);
    const outcome = await Promise.race([drill.run(deps, { master, stop: signal, report }), deaf]);
    return stop.aborted ? STOPPED : time.signal.aborted ? late : outcome;
  } catch (thrown) {
    if (stop.aborted) return STOPPED;
    return time.signal.aborted ? late : describeError(thrown);
  } finally {
    for (const end of callOff) end();
  }
}

const LOOK = "look at fula-node status, then run the drill again with --verbose";

/** A drill writes: into the database, into temporary files. None of it may end as half a file. */
async function whyNoSpace({ files }: Pick<HostReader, "files">, baseDir: string): Promise<Fault | null> {
  const { freeBytes } = await files.space(baseDir);
  if (freeBytes >= DRILL_FREE_BYTES) return null;
  return {
    summary: `${NOT_RUN}${decimalBytes(freeBytes)} free on the disk of ${baseDir}, and a drill that writes needs ${decimalBytes(DRILL_FREE_BYTES)}`,
    todo: "free some space there, then run it again",
  };
}

/** What was removed, and what went wrong. Also after a signal: it is never cut short, only by its own deadline. */
async function cleanUp<Deps>(
  drill: Drill<Deps>,
  { deps, master, listener, clock }: Given<Deps>,
): Promise<{ readonly removed: readonly string[]; readonly fault: CleanUpFault | null }> {
  const report = (line: string) => listener.said(drill, line);
  const todo = `run fula-node drill ${drill.id} again: it cleans up first`;
  try {
    const removed = await within(CLEAN_UP_MS, () => drill.cleanUp(deps, { master, report }), clock);
    if (removed !== LATE) return { removed, fault: null };
    const summary = `no answer within ${duration(CLEAN_UP_MS)}, so something of it may be left`;
    return { removed: [], fault: { summary, todo, isUnavailable: false } };
  } catch (thrown) {
    const { summary, todo: remedy } = describeError(thrown);
    const isUnavailable = thrown instanceof OperatorError && thrown.exit === "unavailable";
    return { removed: [], fault: { summary, todo: remedy ?? todo, isUnavailable } };
  }
}

/** The same of a drill that ran: something of it may still be there. */
function leaving(fault: Fault | null): Fault | null {
  return fault && { ...fault, summary: `it could not clean up: ${fault.summary}` };
}

function describeError(thrown: unknown): DrillOutcome {
  const { summary, todo, evidence } = judgeError(thrown);
  const isBug = !(thrown instanceof OperatorError);
  return failed(
    { summary, todo: isBug ? "report it with the output of fula-node drill --json" : todo },
    evidence,
  );
}
