import { type ExitName, OperatorError } from "../errors.ts";
import { faultOfState } from "./connection-fault.ts";
import { caretExcerpt, placeOf, type Statement } from "./migration-file.ts";

/** What PostgreSQL says of a failed statement (manual, 55.8 Error and Notice Message Fields). */
export interface SqlError {
  /** The SQLSTATE; null where the connection broke instead of the statement. */
  readonly code: string | null;
  readonly message: string;
  readonly detail: string | null;
  readonly hint: string | null;
  /** Counts from 1, in characters of the statement that was sent; null where PostgreSQL gives none. */
  readonly position: number | null;
}

/** Which statement of which file failed. */
export interface FailedStatement {
  readonly file: string;
  readonly sql: string;
  /** Null where it was none of the file's own statements: the commit. */
  readonly statement: Statement | null;
}

/**
 * One line for the ledger: the file's place, the message, the SQLSTATE. PostgreSQL's own detail is left out, since it
 * quotes rows.
 */
export function summariseFailure(failed: FailedStatement, error: SqlError): string {
  const code = error.code === null ? "" : ` (SQLSTATE ${error.code})`;
  return `${placeText(failed, error)}: ${error.message}${code}`;
}

/**
 * The error of a migration that failed: what PostgreSQL said, with file, line, column and a caret under the place.
 * `effect` says what is left of the file's effect.
 */
export function migrationFailed(
  failed: FailedStatement,
  error: SqlError,
  told: { readonly effect: string; readonly cause: unknown },
): OperatorError {
  const { exit, remedy } = wayOut(error);
  return new OperatorError({
    exit,
    what: `${failed.file} failed: ${error.message}${isRaised(error) ? "." : ` (SQLSTATE ${error.code ?? "none"}).`}`,
    why: [`${placeText(failed, error)}: ${told.effect}`, ...failureLines(failed, error)].join("\n"),
    remedy,
    cause: told.cause,
  });
}

/** The error of a down file that PostgreSQL refused: by its own guard (`drift`), or otherwise. */
export function revertFailed(failed: FailedStatement, error: SqlError, cause: unknown): OperatorError {
  const { exit, remedy } = wayOut(error);
  return new OperatorError({
    exit,
    what: `${failed.file} ${isRaised(error) ? "refuses" : "failed"}: ${error.message}.`,
    why: [
      `${placeText(failed, error)}: the down file runs in one transaction, which was rolled back`,
      ...failureLines(failed, error),
    ].join("\n"),
    remedy,
    cause,
  });
}

/** True for what our own files raise (plpgsql RAISE): their detail and hint are written for the operator. */
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

/** The file's own words where it raised the error itself, else the place in the file. */
function failureLines(failed: FailedStatement, error: SqlError): readonly string[] {
  if (isRaised(error)) return error.detail === null ? [] : [error.detail];
  const place = where(failed, error);
  return place === null ? [] : [caretExcerpt(place)];
}

/** SQLSTATEs (manual, appendix A) that pass by themselves: whoever runs again later may succeed. */
const PASSING = new Map([
  ["55P03", "Another session holds a lock on the table (a backup, a long query)."],
  ["40P01", "Two sessions locked each other out."],
  ["57014", "The statement was cancelled from outside."],
  ["57P01", "The server was shut down or the session was ended from outside."],
  ["53100", "The database's disk is full: make room."],
  ["53200", "The server is out of memory."],
]);

function wayOut(error: SqlError): { readonly exit: ExitName; readonly remedy: string } {
  if (isRaised(error))
    return { exit: "drift", remedy: error.hint ?? "Mend what the message names, then run again." };
  const passing = PASSING.get(error.code ?? "");
  if (passing !== undefined) return { exit: "unavailable", remedy: `${passing} Run again.` };
  if (error.code === null || faultOfState(error.code) === "unreachable") {
    return {
      exit: "unavailable",
      remedy: "The connection to PostgreSQL broke; see that it runs, then run again.",
    };
  }
  if (error.code === "42501") {
    return {
      exit: "interrupted",
      remedy: "Give POSTGRES_USER the right to create and alter tables in this database, then run again.",
    };
  }
  const hint = error.hint === null ? "" : ` PostgreSQL's hint: ${error.hint}`;
  return {
    exit: "interrupted",
    remedy: `Mend the cause, then run again: what is applied stays applied.${hint}`,
  };
}
