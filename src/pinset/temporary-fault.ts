import { messageOf, OperatorError } from "../errors.ts";
import { codeOf, isAbsence } from "../machine/file-errors.ts";

/** The error of whatever is kept in a temporary directory. `why`: what it is needed for. */
export function temporaryFault(directory: string, cause: unknown, why?: string): OperatorError {
  const code = codeOf(cause);
  const isFull = code === "ENOSPC" || code === "EDQUOT";
  const todo = isFull
    ? "Free some space"
    : isAbsence(cause)
      ? `Make that directory (mkdir -p ${directory})`
      : "Check that directory and its file system";
  return new OperatorError({
    exit: "unavailable",
    what: isFull
      ? `The disk that holds ${directory} is full.`
      : `fula-node could not use the temporary directory ${directory}: ${messageOf(cause)}.`,
    remedy: `${todo}, or set TMPDIR to another directory, then run this again.`,
    ...(why === undefined ? {} : { why }),
    cause,
  });
}
