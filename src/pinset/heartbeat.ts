import * as z from "zod";
import { type ExitName, messageOf, OperatorError } from "../errors.ts";
import { age } from "../units.ts";
import type { Clock } from "../machine/clock.ts";
import type { Files } from "../machine/file-writer.ts";

/** Where and with what a regular operation leaves its heartbeat. */
export interface HeartbeatDeps {
  readonly files: Pick<Files, "readText" | "writeAtomic">;
  readonly clock: Pick<Clock, "now">;
  /** The heartbeat's own file: `<base>/heartbeats/snapshot.json`. */
  readonly path: string;
}

/**
 * Runs a regular operation and writes down how it ended, also when it threw; what it threw is thrown on.
 * A heartbeat that can't be written does not hide the run's own failure, but fails a run that was fine.
 */
export async function withHeartbeat<Result extends { readonly exit: ExitName; readonly summary: string }>(
  hands: HeartbeatDeps,
  operation: string,
  run: () => Promise<Result>,
): Promise<Result> {
  const startedAt = hands.clock.now();
  const note = async (outcome: ExitName, summary: string): Promise<void> => {
    const before = parseHeartbeat(await hands.files.readText(hands.path));
    const after = writeHeartbeat(before, {
      operation,
      startedAt,
      endedAt: hands.clock.now(),
      outcome,
      summary,
    });
    await hands.files.writeAtomic(hands.path, `${JSON.stringify(after)}\n`, { mode: 0o644 });
  };
  let result: Result;
  try {
    result = await run();
  } catch (thrown) {
    const outcome = thrown instanceof OperatorError ? thrown.exit : "bug";
    await note(outcome, messageOf(thrown)).catch((cause: unknown) => {
      throw withNote(thrown, messageOf(cause));
    });
    throw thrown;
  }
  await note(result.exit, result.summary);
  return result;
}

function withNote(thrown: unknown, why: string): unknown {
  if (!(thrown instanceof OperatorError)) return thrown;
  return thrown.withChanged(
    `${thrown.changed ?? "Nothing."} (The heartbeat could not be written either: ${why})`,
  );
}

const heartbeatSchema = z.object({
  operation: z.string(),
  /** When the last run ended. */
  at: z.iso.datetime(),
  /** The exit's name: `ok`, `pending`, `unavailable` ... */
  outcome: z.string(),
  /** What the last run found or why it failed, in a sentence. */
  summary: z.string(),
  duration_ms: z.number().nonnegative(),
  /** When a run last did its work, whatever it found; null where none ever did. */
  last_good_at: z.iso.datetime().nullable(),
});

/** What the last run of a regular operation left behind for `status` and `doctor`. */
export type Heartbeat = z.infer<typeof heartbeatSchema>;

/** Whether a regular operation does its work. */
interface HeartbeatVerdict {
  readonly state: "never" | "fresh" | "stale" | "failing";
  /** For a person: "last good snapshot 3 h ago". */
  readonly sentence: string;
}

/** Reads a heartbeat file; null where there is none or it is not readable, which is the same to a judge. */
export function parseHeartbeat(text: string | null): Heartbeat | null {
  if (text === null) return null;
  try {
    return heartbeatSchema.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

/** The heartbeat after one more run. Runs that did their work (`ok`, `pending`) move last_good_at. */
export function writeHeartbeat(
  before: Heartbeat | null,
  run: {
    readonly operation: string;
    readonly startedAt: Date;
    readonly endedAt: Date;
    readonly outcome: ExitName;
    readonly summary: string;
  },
): Heartbeat {
  const good = run.outcome === "ok" || run.outcome === "pending";
  const at = run.endedAt.toISOString();
  return {
    operation: run.operation,
    at,
    outcome: run.outcome,
    summary: run.summary,
    duration_ms: Math.max(0, run.endedAt.getTime() - run.startedAt.getTime()),
    last_good_at: good ? at : (before?.last_good_at ?? null),
  };
}

/** Judges a heartbeat: stale where the last good run is older than `maxAgeMs`. `noun` is "snapshot" or "sweep". */
export function judgeHeartbeat(
  heartbeat: Heartbeat | null,
  noun: string,
  now: Date,
  maxAgeMs: number,
): HeartbeatVerdict {
  if (heartbeat === null) return { state: "never", sentence: `no ${noun} yet` };
  const failed = heartbeat.outcome !== "ok" && heartbeat.outcome !== "pending";
  const why = failed ? `; the last run failed: ${heartbeat.summary}` : "";
  if (heartbeat.last_good_at === null) return { state: "failing", sentence: `no good ${noun} yet${why}` };
  const ageMs = now.getTime() - Date.parse(heartbeat.last_good_at);
  const sentence = `last good ${noun} ${describeAge(ageMs)}${why}`;
  if (ageMs > maxAgeMs) return { state: "stale", sentence };
  return { state: failed ? "failing" : "fresh", sentence };
}

function describeAge(ageMs: number): string {
  return ageMs < 0 ? "in the future (the clock has jumped back)" : `${age(ageMs)} ago`;
}
