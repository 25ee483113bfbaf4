import { type ExitName, OperatorError, type Problem } from "../errors.ts";
import { countOf } from "../units.ts";
import { faultOfState } from "./connection-fault.ts";
import { caretExcerpt, placeOf, type Statement } from "./migration-file.ts";

/** PostgreSQL's report of a failed statement (manual, 55.8 Error and Notice Message Fields). */
export interface SqlError {
  /** The SQLSTATE. Null if the connection failed, not the statement. */
  readonly code: string | null;
  readonly message: string;
  readonly detail: string | null;
  readonly hint: string | null;
  /** Counts from 1, in characters of the statement. Null if PostgreSQL reports no position. */
  readonly position: number | null;
}

/** Which statement of which file failed. */
export interface FailedStatement {
  readonly file: string;
  readonly sql: string;
  /** Null if it was not a statement of the file but the commit. */
  readonly statement: Statement | null;
}

/**
 * One line for the ledger: the place in the file, the message, the SQLSTATE. PostgreSQL's detail is left out, since it
 * can quote rows.
 */
export function summariseFailure(failed: FailedStatement, error: SqlError): string {
  return `${placeText(failed, error)}: ${error.message}${codeText(error)}`;
}

/** Nothing if the connection failed, not the statement. */
function codeText({ code }: SqlError): string {
  return code === null ? "" : ` (SQLSTATE ${code})`;
}

/**
 * The error of a migration that failed: PostgreSQL's message, with file, line, column and a caret under the place.
 * `effect` says what is left in the database.
 */
export function migrationFailed(
  failed: FailedStatement,
  error: SqlError,
  context: { readonly effect: string; readonly cause: unknown },
): OperatorError {
  const { exit, remedy } = exitAndRemedyOf(error);
  return new OperatorError({
    exit,
    what: `${failed.file} failed: ${error.message}${isRaised(error) ? "" : codeText(error)}.`,
    why: [`${placeText(failed, error)}: ${context.effect}`, ...failureLines(failed, error)].join("\n"),
    remedy,
    cause: context.cause,
  });
}

/**
 * The error of a down file that failed: because of its own guard (`drift`), or for another reason. `effect` says what became of what it did.
 */
export function revertFailed(
  failed: FailedStatement,
  error: SqlError,
  { effect, cause }: { readonly effect: string; readonly cause: unknown },
): OperatorError {
  const { exit, remedy } = exitAndRemedyOf(error);
  return new OperatorError({
    exit,
    what: `${failed.file} ${isRaised(error) ? "refuses" : "failed"}: ${error.message}.`,
    why: [`${placeText(failed, error)}: ${effect}`, ...failureLines(failed, error)].join("\n"),
    remedy,
    cause,
  });
}

/** What a guard of a down file says, with what to do about it. Null if it failed for another reason. */
export function guardRefusal({ file }: Pick<FailedStatement, "file">, error: SqlError): Problem | null {
  if (!isRaised(error)) return null;
  return { subject: file, what: `${error.message}.`, remedy: exitAndRemedyOf(error).remedy };
}

/** The error (`drift`) of guards that were asked before any down file ran. There is at least one refusal. */
export function downsRefused(refusals: readonly Problem[]): OperatorError {
  const [first] = refusals;
  const isOne = refusals.length === 1;
  return new OperatorError({
    exit: "drift",
    what: isOne
      ? `${first?.subject} refuses: ${first?.what}`
      : `Migrations can't be reverted: ${countOf(refusals.length, "thing")} in the database prevent that.`,
    why: "Without the migration, what is named would be lost, or would be understood as something else.",
    remedy: (isOne ? first?.remedy : undefined) ?? "Do what is listed for each, then run again.",
    problems: isOne ? [] : refusals,
  });
}

/** True for errors that our own files raise (plpgsql RAISE). Their detail and hint are written for the operator. */
function isRaised(error: SqlError): boolean {
  return error.code === "P0001";
}

function placeText(failed: FailedStatement, error: SqlError): string {
  const place = where(failed, error);
  return place === null ? failed.file : `${failed.file}:${place.line}:${place.column}`;
}

function where(failed: FailedStatement, error: SqlError): ReturnType<typeof placeOf> | null {
  return failed.statement === null ? null : placeOf(failed.sql, failed.statement.offset, error.position ?? 1);
}

/** The file's own detail if it raised the error, otherwise the place in the file. */
function failureLines(failed: FailedStatement, error: SqlError): readonly string[] {
  if (isRaised(error)) return error.detail === null ? [] : [error.detail];
  const place = where(failed, error);
  return place === null ? [] : [caretExcerpt(place)];
}

/** SQLSTATEs (manual, appendix A) of transient errors: a later run may succeed. */
const TRANSIENT = new Map([
  ["55P03", "Another session holds a lock on the table (a backup, a long query)."],
  ["40P01", "Two sessions waited for each other (deadlock)."],
  ["57014", "The statement was cancelled by another session."],
  ["57P01", "The server was shut down, or the session was ended by an administrator."],
  ["53100", "The database's disk is full. Free some space."],
  ["53200", "The server is out of memory."],
]);

function exitAndRemedyOf(error: SqlError): { readonly exit: ExitName; readonly remedy: string } {
  if (isRaised(error))
    return {
      exit: "drift",
      remedy: error.hint ?? "Fix the problem that the message describes, then run again.",
    };
  const transient = TRANSIENT.get(error.code ?? "");
  if (transient !== undefined) return { exit: "unavailable", remedy: `${transient} Run again.` };
  if (error.code === null || faultOfState(error.code) === "unreachable") {
    return {
      exit: "unavailable",
      remedy: "The connection to PostgreSQL was lost. Check that PostgreSQL runs, then run again.",
    };
  }
  if (error.code === "42501") {
    return {
      exit: "interrupted",
      remedy: "Grant POSTGRES_USER the right to create and alter tables in this database, then run again.",
    };
  }
  const hint = error.hint === null ? "" : ` PostgreSQL's hint: ${error.hint}`;
  return {
    exit: "interrupted",
    remedy: `Fix the cause, then run again. Migrations that are already applied stay applied.${hint}`,
  };
}
