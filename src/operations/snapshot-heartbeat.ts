import { OperatorError, messageOf } from "../errors.ts";
import type { ExitName } from "../errors.ts";
import type { Clock, Files } from "../host/host.ts";
import { beat, parseHeartbeat } from "../model/snapshot-heartbeat.ts";

/** Where and with what a regular operation leaves its heartbeat. */
export interface HeartbeatHands {
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
  hands: HeartbeatHands,
  operation: string,
  run: () => Promise<Result>,
): Promise<Result> {
  const startedAt = hands.clock.now();
  const note = async (outcome: ExitName, summary: string): Promise<void> => {
    const before = parseHeartbeat(await hands.files.readText(hands.path));
    const after = beat(before, { operation, startedAt, endedAt: hands.clock.now(), outcome, summary });
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
