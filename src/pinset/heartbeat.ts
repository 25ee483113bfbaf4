import * as z from "zod";
import { type ExitName, messageOf, OperatorError } from "../errors.ts";
import { age, utcSeconds } from "../units.ts";
import type { Clock } from "../machine/clock.ts";
import type { Files } from "../machine/file-writer.ts";
import { type AlarmChannels, type AlarmKind, type AlarmSent, commandFailure, raiseAlarm } from "./alerts.ts";

/** What a regular operation needs to write its heartbeat file. */
export interface HeartbeatDeps {
  readonly files: Pick<Files, "readText" | "writeAtomic">;
  readonly clock: Pick<Clock, "now">;
  /** The path of the file: `<base>/heartbeats/snapshot.json`. */
  readonly path: string;
  /** Where an alarm goes if the operation fails several times in a row. Left out: nowhere. */
  readonly channels?: AlarmChannels;
  /** Another regular operation. A run that never starts, or is killed, can raise no alarm itself. */
  readonly watched?: { readonly path: string; readonly everyMs: number };
}

/** What a regular operation gives back. */
interface RegularResult {
  readonly exit: ExitName;
  readonly summary: string;
  /** What became of its alarm; null if it raised none. */
  readonly alarm?: AlarmSent | null;
  /** Plain data for `status`, of bounded size. */
  readonly facts?: Readonly<Record<string, unknown>>;
}

/**
 * Runs a regular operation and records how it ended, also if it threw; the error is thrown again. Wrong usage is not a
 * run: it records nothing. If the heartbeat cannot be written, a successful run fails. If the run had failed already,
 * its own error stays. From the third failure in a row, an alarm is raised, once a day.
 */
export async function withHeartbeat<Result extends RegularResult>(
  deps: HeartbeatDeps,
  operation: string,
  run: () => Promise<Result>,
): Promise<Result> {
  const startedAt = deps.clock.now();
  const record = async (ending: Pick<RunEnding, "outcome" | "summary" | "alarm" | "facts">) => {
    const before = parseHeartbeat(await deps.files.readText(deps.path));
    const ended = { operation, startedAt, endedAt: deps.clock.now(), ...ending };
    const after = writeHeartbeat(before, ended);
    const failure = await reportFailures(deps, after, ended.endedAt);
    await deps.files.writeAtomic(deps.path, `${JSON.stringify(failure.heartbeat)}\n`, { mode: 0o644 });
    if (failure.error !== null) throw failure.error;
  };
  let result: Result;
  try {
    result = await run();
  } catch (thrown) {
    if (thrown instanceof OperatorError && thrown.exit === "usage") throw thrown;
    const outcome = thrown instanceof OperatorError ? thrown.exit : "bug";
    await record({ outcome, summary: messageOf(thrown) }).catch((cause: unknown) => {
      throw addFailure(thrown, messageOf(cause));
    });
    throw thrown;
  }
  const { exit, summary, alarm, facts } = result;
  await record({
    outcome: exit,
    summary,
    ...(alarm === undefined ? {} : { alarm }),
    ...(facts === undefined ? {} : { facts }),
  });
  return result;
}

function addFailure(thrown: unknown, why: string): unknown {
  if (!(thrown instanceof OperatorError)) return thrown;
  return thrown.withChanged(
    `${thrown.changed ?? "Nothing."} (The failure could not be recorded or reported either: ${why})`,
  );
}

/**
 * Raises the alarms for failures in a row, and for the other operation if it does not run, each if it is due. The
 * heartbeat says when they were last raised.
 */
async function reportFailures(
  { files, channels, watched }: HeartbeatDeps,
  heartbeat: Heartbeat,
  at: Date,
): Promise<{ readonly heartbeat: Heartbeat; readonly error: unknown }> {
  if (channels === undefined) return { heartbeat, error: null };
  const own = isFailureAlarmDue(heartbeat, at)
    ? await reportFailing(channels, heartbeat, at)
    : { heartbeat, error: null };
  if (watched === undefined) return own;
  const other = parseHeartbeat(await files.readText(watched.path));
  if (other === null || at.getTime() - Date.parse(other.at) <= 2 * watched.everyMs)
    return { ...own, heartbeat: { ...own.heartbeat, missing_alarmed_at: null } };
  const since = own.heartbeat.missing_alarmed_at;
  if (since !== null && !isDayOver(since, at)) return own;
  const missing = await reportMissing(channels, other, at);
  return {
    heartbeat: { ...own.heartbeat, missing_alarmed_at: missing === null ? at.toISOString() : since },
    error: own.error ?? missing,
  };
}

/** Raises the alarm for an operation that does not run. Returns the error if the alarm did not leave, else null. */
async function reportMissing(channels: AlarmChannels, other: Heartbeat, at: Date): Promise<unknown> {
  const { operation, at: last, outcome } = other;
  try {
    const sent = await raiseAlarm(channels, {
      kind: "run-missing",
      at,
      summary: `${operation} did not run to its end for ${age(at.getTime() - Date.parse(last))}`,
      counts: {},
      worst: [{ operation, outcome, last }],
      lines: [`${utcSeconds(at)} run-missing operation=${operation.replaceAll(" ", "-")} last=${last}`],
    });
    return commandFailure(sent);
  } catch (thrown) {
    return thrown;
  }
}

async function reportFailing(
  channels: AlarmChannels,
  heartbeat: Heartbeat,
  at: Date,
): Promise<{ readonly heartbeat: Heartbeat; readonly error: unknown }> {
  const { operation, failures, outcome, summary, last_good_at } = heartbeat;
  try {
    const alarm = await raiseAlarm(channels, {
      kind: "run-failed",
      at,
      summary: `${operation} failed ${failures} times in a row; the last time: ${summary}`,
      counts: { failures },
      worst: [{ operation, outcome, summary, last_good_at }],
      lines: [
        `${utcSeconds(at)} run-failed operation=${operation.replaceAll(" ", "-")} failures=${failures} outcome=${outcome}`,
      ],
    });
    // A command that failed is tried again after the next failure.
    const alarmed_at = alarm.command === "failed" ? heartbeat.alarmed_at : at.toISOString();
    return { heartbeat: { ...heartbeat, alarm, alarmed_at }, error: commandFailure(alarm) };
  } catch (error) {
    return { heartbeat, error };
  }
}

const heartbeatSchema = z.object({
  operation: z.string(),
  /** When the last run ended. */
  at: z.iso.datetime(),
  /** The name of the exit code: `ok`, `pending`, `unavailable` ... */
  outcome: z.string(),
  /** What the last run found, or why it failed, in a sentence. */
  summary: z.string(),
  duration_ms: z.number().nonnegative(),
  /** When a run last completed, whatever it found; null if no run ever completed. */
  last_good_at: z.iso.datetime().nullable(),
  /** How many runs failed since the last one that completed. 0.1.0 did not write this, nor what follows. */
  failures: z.number().int().nonnegative().default(0),
  /** When the alarm for failures in a row was raised; null if it was not, since the last run that completed. */
  alarmed_at: z.iso.datetime().nullable().default(null),
  /** When the alarm for the other operation was raised; null if that one runs. */
  missing_alarmed_at: z.iso.datetime().nullable().default(null),
  /** The alarm of the last run; null if there was none. */
  alarm: z
    .object({
      kind: z.string() as z.ZodType<AlarmKind>,
      command: z.enum(["none", "done", "failed"]),
      why: z.string().nullable(),
    })
    .nullable()
    .default(null),
  /** What the last run that completed found, and when that was. */
  facts: z.record(z.string(), z.unknown()).nullable().default(null),
  facts_at: z.iso.datetime().nullable().default(null),
});

/** What the last run of a regular operation recorded for `status` and `doctor`. */
export type Heartbeat = z.infer<typeof heartbeatSchema>;

/** How one run ended. */
interface RunEnding {
  readonly operation: string;
  readonly startedAt: Date;
  readonly endedAt: Date;
  readonly outcome: ExitName;
  readonly summary: string;
  readonly alarm?: AlarmSent | null;
  readonly facts?: Readonly<Record<string, unknown>>;
}

/** Reads a heartbeat file. Null if the file is absent or malformed; assessHeartbeat distinguishes the two. */
export function parseHeartbeat(text: string | null): Heartbeat | null {
  if (text === null) return null;
  try {
    return heartbeatSchema.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

/** The heartbeat after one more run. Runs that completed (`ok`, `pending`) set last_good_at. */
export function writeHeartbeat(before: Heartbeat | null, run: RunEnding): Heartbeat {
  const good = isGood(run.outcome);
  const at = run.endedAt.toISOString();
  return {
    operation: run.operation,
    at,
    outcome: run.outcome,
    summary: run.summary,
    duration_ms: Math.max(0, run.endedAt.getTime() - run.startedAt.getTime()),
    last_good_at: good ? at : (before?.last_good_at ?? null),
    failures: good ? 0 : (before?.failures ?? 0) + 1,
    alarmed_at: good ? null : (before?.alarmed_at ?? null),
    missing_alarmed_at: before?.missing_alarmed_at ?? null,
    alarm: run.alarm ?? null,
    facts: run.facts ?? before?.facts ?? null,
    facts_at: run.facts === undefined ? (before?.facts_at ?? null) : at,
  };
}

function isGood(outcome: string): boolean {
  return outcome === "ok" || outcome === "pending";
}

const ALARM_AFTER_FAILURES = 3;
const ALARM_AGAIN_MS = 24 * 3_600_000;

/** True if the failures in a row are worth an alarm now: from the third on, and once a day. */
export function isFailureAlarmDue({ failures, alarmed_at }: Heartbeat, now: Date): boolean {
  if (failures < ALARM_AFTER_FAILURES) return false;
  if (alarmed_at === null) return true;
  return isDayOver(alarmed_at, now);
}

function isDayOver(since: string, now: Date): boolean {
  const sinceMs = now.getTime() - Date.parse(since);
  return sinceMs >= ALARM_AGAIN_MS || sinceMs < 0;
}

/** The health of a regular operation, for the status screen. */
export interface HeartbeatHealth {
  readonly state: "ok" | "attention" | "unknown";
  /** For people: "3 h ago". */
  readonly sentence: string;
  /** What to do; null if there is nothing to do. */
  readonly todo: string | null;
  readonly heartbeat: Heartbeat | null;
}

/** Clocks of a machine and of a disk that was moved to it may differ by so much. */
export const CLOCK_TOLERANCE_MS = 60_000;

/**
 * Judges the text of a heartbeat file. `ok` is only a last run that completed without an alarm, not longer ago than two
 * periods and not in the future. A file that can't be read is `unknown`, and not the same as one that is absent.
 */
export function assessHeartbeat(
  text: string | null,
  operation: {
    readonly noun: string;
    readonly command: string;
    readonly everyMs: number;
    /** When its cron entry was written; null if that is not known. */
    readonly scheduledAt: Date | null;
  },
  now: Date,
): HeartbeatHealth {
  const { noun, command, everyMs, scheduledAt } = operation;
  const heartbeat = parseHeartbeat(text);
  const run = `run it and read what it prints: ${command}`;
  const attention = (sentence: string, todo: string): HeartbeatHealth => ({
    state: "attention",
    sentence,
    todo,
    heartbeat,
  });
  const waitedMs = scheduledAt === null ? Infinity : now.getTime() - scheduledAt.getTime();
  if (text === null && waitedMs >= -CLOCK_TOLERANCE_MS && waitedMs <= 2 * everyMs)
    return { state: "ok", sentence: `no ${noun} on record; cron starts one`, todo: null, heartbeat };
  if (text === null) return attention(`no ${noun} on record`, `wait for cron, or ${run}`);
  if (heartbeat === null)
    return {
      state: "unknown",
      sentence: `the record of the last ${noun} can't be read`,
      todo: run,
      heartbeat,
    };
  const { last_good_at, outcome, summary, alarm } = heartbeat;
  const good = last_good_at === null ? `no good ${noun} on record` : sinceSentence(last_good_at, now);
  if (!isGood(outcome)) return attention(`${good}; the last run failed: ${summary}`, run);
  const ageMs = now.getTime() - Date.parse(last_good_at ?? heartbeat.at);
  if (ageMs < -CLOCK_TOLERANCE_MS) return attention(good, "check the clock of this machine");
  if (ageMs > 2 * everyMs) return attention(`${good}, which is too long`, `check cron, or ${run}`);
  if (alarm?.command === "failed")
    return attention(`${good}; ALERT_COMMAND failed: ${alarm.why}`, "repair ALERT_COMMAND");
  if (outcome === "pending" || alarm !== null) return attention(`${good}: ${summary}`, run);
  return { state: "ok", sentence: good, todo: null, heartbeat };
}

function sinceSentence(date: string, now: Date): string {
  return describeAge(now.getTime() - Date.parse(date));
}

function describeAge(ageMs: number): string {
  return ageMs < 0 ? "in the future (the clock was set back)" : `${age(ageMs)} ago`;
}
