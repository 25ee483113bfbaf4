import type { Listener, PlanItem, RunEvent } from "../engine/events.ts";
import type { OperatorError } from "../errors.ts";

/** What a verb ends with: an object for `--json`, and lines for people. */
export interface Result {
  readonly data: Readonly<Record<string, unknown>>;
  readonly lines: readonly string[];
}

/** Shows a run to whoever watches: a person at a terminal, a log, or a program. */
export interface Reporter {
  readonly listen: Listener;
  /** A line that is neither result nor error: a note. */
  note(line: string): void;
  /** How far a long run is: on a terminal in place of the line before, in a log every ten seconds. */
  progress(line: string): void;
  result(result: Result): void;
  /** Rows as lines for a Result: columns aligned, 80 characters wide. */
  table(rows: readonly (readonly string[])[]): readonly string[];
  error(error: OperatorError, exitCode: number): void;
  /** Ends whatever is being drawn. */
  close(): Promise<void>;
}

export type { PlanItem, RunEvent };
