import { open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { messageOf, OperatorError } from "../errors.ts";
import { makeDirectories, sync } from "../machine/file-writer.ts";
import type { OperatorCommand } from "../pinset/alert-command.ts";
import { visible, visibleJson } from "../units.ts";

/** What an alarm is about. ALERT_COMMAND gets it as `kind`. */
export type AlarmKind =
  | "under-replicated"
  | "node-stalled"
  | "pinset-dropped"
  | "chain-restarted"
  | "snapshot-damaged"
  | "run-failed"
  | "run-missing"
  | "drill-failed";

/** One alarm of a run. A run raises one, however many pins it is about. */
export interface Alarm {
  readonly kind: AlarmKind;
  readonly at: Date;
  /** For people, in one sentence. */
  readonly summary: string;
  readonly counts: Readonly<Record<string, number>>;
  /** The worst cases: pins, nodes. At most 20 of them are sent. */
  readonly worst: readonly Readonly<Record<string, unknown>>[];
  /** Lines for the alert log, in upstream's format: time, kind, `key=value`. */
  readonly lines: readonly string[];
}

/** The ways on which an alarm leaves. */
export interface AlarmChannels {
  readonly log: AlertLog;
  /** ALERT_COMMAND; null if it is not set. */
  readonly command: OperatorCommand | null;
  /** Which master this is: the name of the machine, and the pool. */
  readonly source: { readonly host: string; readonly pool: string };
}

/** What became of an alarm after it was in the log. */
export interface AlarmSent {
  readonly kind: AlarmKind;
  /** `done`, `failed`, or `none` if ALERT_COMMAND is not set. */
  readonly command: "none" | "done" | "failed";
  /** Why the command failed, as a clause. */
  readonly why: string | null;
}

const MAX_WORST = 20;

/**
 * Writes an alarm into the alert log and runs ALERT_COMMAND with the alarm as JSON on its standard input. A command that
 * fails is in the result; see commandFailure. Throws an OperatorError (unavailable) if the log can't be written; the
 * command was run nevertheless.
 */
export async function raiseAlarm({ log, command, source }: AlarmChannels, alarm: Alarm): Promise<AlarmSent> {
  const { kind, at, summary, counts } = alarm;
  const logged = await log.append(alarm.lines).then(
    () => null,
    (thrown: unknown) => ({ thrown }),
  );
  let why: string | null = null;
  if (command !== null) {
    const worst = alarm.worst.slice(0, MAX_WORST);
    const data = { version: 1, kind, at: at.toISOString(), ...source, summary, counts, worst, log: log.path };
    why = await command.run(`${visibleJson(data)}\n`);
  }
  if (logged !== null) throw logged.thrown;
  return { kind, command: command === null ? "none" : why === null ? "done" : "failed", why };
}

/** The error for an alarm that ALERT_COMMAND did not take, or null. The run throws it at its end, so that it is not lost. */
export function commandFailure(sent: AlarmSent | null): OperatorError | null {
  if (sent?.command !== "failed") return null;
  return new OperatorError({
    exit: "unavailable",
    what: `ALERT_COMMAND did not take the alarm (${sent.kind}): ${sent.why}.`,
    why: "The alarm is in the alert log, but nobody was notified.",
    remedy:
      "The command must be an executable file of root that nobody else can write to, and end with exit code 0 within 30 s.",
    changed: "The run itself is complete, and its alarm is in the alert log.",
  });
}

/** An append-only log of alerts, one per line, for people and log collectors. */
export interface AlertLog {
  readonly path: string;
  /** Appends lines and syncs them to the disk. Throws an OperatorError (unavailable) if that fails: an alert must not get lost without notice. */
  append(lines: readonly string[]): Promise<void>;
}

/**
 * Renames a log that is larger than `maxBytes` (default 16 MiB) to `.1`, the previous `.1` to `.2` and so on; `keep`
 * (default 5) old files stay. Whoever has the log open for appending goes on in the renamed file, so no line is lost:
 * cron opens its log before each run, and the next run creates a new one.
 */
export async function rotateLog(
  path: string,
  limits: { readonly maxBytes?: number; readonly keep?: number } = {},
): Promise<void> {
  const { maxBytes = 16 * 1024 * 1024, keep = 5 } = limits;
  if ((await sizeOf(path)) > maxBytes) await rotate(path, keep);
}

/**
 * Opens an alert log, which is rotated before an append. Its lines contain no invisible characters.
 */
export function openAlertLog(
  path: string,
  limits: { readonly maxBytes?: number; readonly keep?: number } = {},
): AlertLog {
  return {
    path,
    append: async (lines) => {
      if (lines.length === 0) return;
      try {
        const directory = dirname(path);
        await makeDirectories(directory, 0o755);
        await rotateLog(path, limits);
        const file = await open(path, "a", 0o640);
        try {
          await file.writeFile(lines.map((line) => `${visible(line, { oneLine: true })}\n`).join(""));
          await file.sync();
        } finally {
          await file.close();
        }
        // The log can be a new file.
        await sync(directory);
      } catch (cause) {
        throw new OperatorError({
          exit: "unavailable",
          what: `The alert log ${path} could not be written: ${messageOf(cause)}.`,
          remedy: "Free some space or repair the directory, then run this again.",
          cause,
        });
      }
    },
  };
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return 0;
    throw cause;
  }
}

async function rotate(path: string, keep: number): Promise<void> {
  await rm(`${path}.${keep}`, { force: true });
  for (let age = keep - 1; age >= 1; age--) {
    await rename(`${path}.${age}`, `${path}.${age + 1}`).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code !== "ENOENT") throw cause;
    });
  }
  await rename(path, `${path}.1`);
}
