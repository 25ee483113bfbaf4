import * as z from "zod";
import { type ExitName, messageOf, OperatorError } from "../errors.ts";
import { age } from "../units.ts";
import type { Clock } from "../machine/clock.ts";
import type { Files } from "../machine/file-writer.ts";

/** What a regular operation needs to write its heartbeat file. */
export interface HeartbeatDeps {
  readonly files: Pick<Files, "readText" | "writeAtomic">;
  readonly clock: Pick<Clock, "now">;
  /** The path of the file: `<base>/heartbeats/snapshot.json`. */
  readonly path: string;
}

/**
 * Runs a regular operation and records how it ended, also if it threw; the error is thrown again. If the
 * heartbeat cannot be written, a successful run fails. If the run had failed already, its own error stays.
 */
export async function withHeartbeat<Result extends { readonly exit: ExitName; readonly summary: string }>(
  deps: HeartbeatDeps,
  operation: string,
  run: () => Promise<Result>,
): Promise<Result> {
  const startedAt = deps.clock.now();
  const record = async (outcome: ExitName, summary: string): Promise<void> => {
    const before = parseHeartbeat(await deps.files.readText(deps.path));
    const after = writeHeartbeat(before, {
      operation,
      startedAt,
      endedAt: deps.clock.now(),
      outcome,
      summary,
    });
    await deps.files.writeAtomic(deps.path, `${JSON.stringify(after)}\n`, { mode: 0o644 });
  };
  let result: Result;
  try {
    result = await run();
  } catch (thrown) {
    const outcome = thrown instanceof OperatorError ? thrown.exit : "bug";
    await record(outcome, messageOf(thrown)).catch((cause: unknown) => {
      throw addHeartbeatFailure(thrown, messageOf(cause));
    });
    throw thrown;
  }
  await record(result.exit, result.summary);
  return result;
}

function addHeartbeatFailure(thrown: unknown, why: string): unknown {
  if (!(thrown instanceof OperatorError)) return thrown;
  return thrown.withChanged(
    `${thrown.changed ?? "Nothing."} (The heartbeat file could not be written either: ${why})`,
  );
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
});

/** What the last run of a regular operation recorded for `status` and `doctor`. */
export type Heartbeat = z.infer<typeof heartbeatSchema>;

/** The health of a regular operation. */
interface HeartbeatVerdict {
  readonly state: "never" | "fresh" | "stale" | "failing";
  /** For people: "last good snapshot 3 h ago". */
  readonly sentence: string;
}

/** Reads a heartbeat file. Null if the file is absent or malformed; both mean that no run is known. */
export function parseHeartbeat(text: string | null): Heartbeat | null {
  if (text === null) return null;
  try {
    return heartbeatSchema.parse(JSON.parse(text));
  } catch {
    return null;
  }
}

/** The heartbeat after one more run. Runs that completed (`ok`, `pending`) set last_good_at. */
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

/** Evaluates a heartbeat: `stale` if the last good run is older than `maxAgeMs`. `noun` is "snapshot" or "sweep". */
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
  return ageMs < 0 ? "in the future (the clock was set back)" : `${age(ageMs)} ago`;
}
