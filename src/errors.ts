/**
 * The exit codes, by name. They are a documented contract: scripts and cron entries rely on them,
 * so a number never gets a second meaning.
 */
export const EXIT_CODES = {
  ok: 0,
  bug: 1,
  usage: 2,
  pending: 20,
  settings: 21,
  preflight: 22,
  foreign: 23,
  drift: 24,
  locked: 25,
  interrupted: 26,
  unhealthy: 27,
  integrity: 28,
  unavailable: 29,
  newer: 30,
} as const;

/** The name of an exit code. The code uses names; only main.ts turns them into numbers. */
export type ExitName = keyof typeof EXIT_CODES;

/**
 * How a verb ends without an error. `status` and `doctor` also end with what they found: something that is down, or that is not known.
 * `drill` ends with what it found too, and as `interrupted` after a signal.
 */
export type VerbExit = Extract<ExitName, "ok" | "pending" | "unhealthy" | "unavailable" | "interrupted">;

/** What each exit code means and what to do about it. The table in docs/exit-codes.md is generated from this. */
export const EXIT_MEANINGS: Readonly<Record<ExitName, readonly [meaning: string, remedy: string]>> = {
  ok: ["done, or there was nothing to do", ""],
  bug: ["a bug in fula-node", "report it with the lines that it printed; running again is safe"],
  usage: ["the command line is wrong", "see --help"],
  pending: [
    "changes are pending, or something needs attention",
    "read the list that it prints (`--dry-run`, `status`, `doctor`, `sweep --strict`, `snapshot list`, a pinset that lost pins)",
  ],
  settings: [
    "settings are missing or wrong; all of them are listed",
    "correct `.env`, or pass `--set KEY=VALUE`",
  ],
  preflight: [
    "the machine is not ready, or a confirmation is missing; every problem is listed",
    "fix each problem, or confirm with the flag that is named",
  ],
  foreign: [
    "found something that fula-node did not create, another pool or identity, or a master that was removed from its pool; nothing was changed",
    "move it away, restore what was lost, or take it over with `--adopt STEP`; for a removed master, `trust add NAME` on another one",
  ],
  drift: [
    "something differs, and it is not safe to repair it automatically",
    "read what differs and follow the remedy that is printed",
  ],
  locked: [
    "another run holds the lock",
    "wait until it ends; the lock is released even if that run is killed",
  ],
  interrupted: [
    "stopped before the end",
    "run again; it continues from there (`drill`: from the start, and it has cleaned up)",
  ],
  unhealthy: [
    "the changes were made, but it does not work; `status`, `doctor`: something does not work; `snapshot list`: the snapshots are gone; `drill`: one failed",
    "read the log lines that it prints, fix the cause, run again",
  ],
  integrity: [
    "a signature, a checksum or the migration ledger does not match",
    "do not simply retry; find out what changed it",
  ],
  unavailable: [
    "a required service does not answer; `status`, `doctor`: something could not be checked, and nothing is worse",
    "start it or make it reachable, then run again",
  ],
  newer: ["created by a newer version of fula-node", "run that version"],
};

/** One of the problems that an error lists: what it is about, what is wrong, and how to fix it. */
export interface Problem {
  /** What the problem is about: a check, a setting's key, a step's id, a file. */
  readonly subject: string;
  readonly what: string;
  readonly remedy?: string;
}

/** The texts of an OperatorError. Each is a full sentence, and none contains a secret. */
export interface OperatorErrorFields {
  readonly exit: ExitName;
  /** What went wrong, in one sentence. */
  readonly what: string;
  /** Why it happened, or why it is refused. */
  readonly why?: string;
  /** What the operator can do about it. */
  readonly remedy?: string;
  /** What this run had changed before the error. If left out, nothing was changed. */
  readonly changed?: string;
  readonly problems?: readonly Problem[];
  readonly cause?: unknown;
}

/**
 * An error for the operator. It says what happened, why, what to do, and whether anything was changed.
 * Every other error that reaches main.ts is a bug (exit 1, with its stack).
 */
export class OperatorError extends Error {
  readonly exit: ExitName;
  readonly what: string;
  readonly why: string | undefined;
  readonly remedy: string | undefined;
  readonly changed: string | undefined;
  readonly problems: readonly Problem[];

  constructor(fields: OperatorErrorFields) {
    super(fields.what, { cause: fields.cause });
    this.name = "OperatorError";
    this.exit = fields.exit;
    this.what = fields.what;
    this.why = fields.why;
    this.remedy = fields.remedy;
    this.changed = fields.changed;
    this.problems = fields.problems ?? [];
  }

  /** The same error, with what had been changed before it. */
  withChanged(changed: string): OperatorError {
    return this.with({ changed });
  }

  /** The same error, with another thing to do. */
  withRemedy(remedy: string): OperatorError {
    return this.with({ remedy });
  }

  private with(other: Pick<OperatorErrorFields, "changed" | "remedy">): OperatorError {
    const { exit, what, why, remedy, changed, problems } = this;
    return new OperatorError({
      exit,
      what,
      problems,
      cause: this.cause,
      ...(why === undefined ? {} : { why }),
      ...(remedy === undefined ? {} : { remedy }),
      ...(changed === undefined ? {} : { changed }),
      ...other,
    });
  }
}

/** How serious a line in the log of a service is. */
export type LogLevel = "debug" | "info" | "warn" | "error";

/** Writes one line to the log of a service, as `info` unless a level is given. No line contains a secret. */
export type Log = (line: string, level?: LogLevel, requestId?: string) => void;

/** The message of any thrown value, for use in a sentence. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
