import type { Listener, PlanItem, RunEvent } from "../engine/events.ts";
import type { OperatorError } from "../errors.ts";

/** The result of a verb: an object for `--json`, and lines for people. */
export interface Result {
  readonly data: Readonly<Record<string, unknown>>;
  readonly lines: readonly string[];
}

/** Prints a run: to a terminal, to a log, or as JSON. */
export interface Reporter {
  readonly listen: Listener;
  /** Prints a line that is neither a result nor an error. */
  note(line: string): void;
  /**
   * Prints the progress of a long run. On a terminal it replaces the line before; in a log it is printed every ten
   * seconds, and only if it differs. `leftMs` is how long a wait can still take: it is added in seconds, and a line in
   * which only these differ is not printed again in a log.
   */
  progress(line: string, leftMs?: number): void;
  result(result: Result): void;
  /** Formats rows as lines of a Result: aligned columns, 80 characters wide. */
  table(rows: readonly (readonly string[])[]): readonly string[];
  /** Breaks a sentence into lines of a Result, 80 characters wide. */
  wrap(text: string): readonly string[];
  error(error: OperatorError, exitCode: number): void;
  /** Finishes what is being drawn. */
  close(): Promise<void>;
}

export type { PlanItem, RunEvent };
