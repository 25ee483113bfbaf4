/**
 * The exit codes, by name. They are a documented contract: scripts and cron lines rely on them,
 * so a number is never given a second meaning.
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

/** The name of an exit code; code uses names, only cli.ts turns them into numbers. */
export type ExitName = keyof typeof EXIT_CODES;

/** How a verb ends when nothing went wrong: all is well, or something is pending (exit 20). */
export type VerbExit = Extract<ExitName, "ok" | "pending">;

/** What each exit code means, and what to do about it: the table of docs/exit-codes.md. */
export const EXIT_MEANINGS: Readonly<Record<ExitName, readonly [meaning: string, remedy: string]>> = {
  ok: ["done, or nothing to do", ""],
  bug: ["a bug in fula-node", "report it with the lines it printed; running again is safe"],
  usage: ["the command line is wrong", "see --help"],
  pending: [
    "something is to be done, or is below its minimum",
    "read what it lists: `--dry-run`, `status`, `sweep --strict`, a pinset that shrank",
  ],
  settings: ["settings are missing or wrong; all are listed", "mend `.env`, or give `--set KEY=VALUE`"],
  preflight: [
    "the machine is not ready, or a confirmation is missing; all is listed",
    "repair what is listed, or allow it by the flag that is named",
  ],
  foreign: [
    "something of another hand is in the way; nothing was changed",
    "move it away, put the lost thing back, or take it over with `--adopt STEP`",
  ],
  drift: ["it differs in a way that is not repaired unasked", "read what differs; the remedy is with it"],
  locked: ["another run holds the lock", "wait for it; the lock goes with its holder, even a killed one"],
  interrupted: ["stopped part-way", "run again: it goes on from there"],
  unhealthy: [
    "applied, but it does not work",
    "read the log lines that it prints, mend the cause, run again",
  ],
  integrity: ["a signature, checksum or ledger does not fit", "never retry blindly: find out who changed it"],
  unavailable: ["something that is needed does not answer", "bring it back, then run again"],
  newer: ["made by a newer fula-node", "run that version"],
};

/** One problem among several that one error lists: what is wrong with what, and the way out. */
export interface Problem {
  /** The thing the problem is about: a check, a setting's key, a step's id, a file. */
  readonly subject: string;
  readonly what: string;
  readonly remedy?: string;
}

/** What an OperatorError says; every text is a full sentence and none holds a secret. */
export interface OperatorErrorFields {
  readonly exit: ExitName;
  /** What went wrong, in one sentence. */
  readonly what: string;
  /** Why it is so, or why it is refused. */
  readonly why?: string;
  /** What the operator can do about it. */
  readonly remedy?: string;
  /** What this run had changed by then. Left out: nothing was changed. */
  readonly changed?: string;
  readonly problems?: readonly Problem[];
  readonly cause?: unknown;
}

/**
 * An error meant for the operator: it says what, why, what to do, and whether anything was changed.
 * Anything else that reaches the top is a bug (exit 1, with its stack).
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

  /** The same error, told by someone who knows what had been changed by then. */
  withChanged(changed: string): OperatorError {
    const { exit, what, why, remedy, problems } = this;
    return new OperatorError({
      exit,
      what,
      changed,
      problems,
      cause: this.cause,
      ...(why === undefined ? {} : { why }),
      ...(remedy === undefined ? {} : { remedy }),
    });
  }
}

/** The message of anything that was thrown, for use inside a sentence. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
