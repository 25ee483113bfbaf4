import { messageOf, OperatorError } from "../errors.ts";

const REASONS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EDQUOT: "the disk quota is used up",
  EIO: "the disk reports an error",
  EISDIR: "it is a directory",
  ELOOP: "too many symbolic links",
  ENAMETOOLONG: "the name is too long",
  ENOENT: "it does not exist",
  ENOSPC: "no space is left on the device",
  ENOTDIR: "a part of its path is not a directory",
  EPERM: "the kernel refused it",
  EROFS: "the file system is read-only",
};

const REMEDIES: Readonly<Record<string, string>> = {
  EACCES: "Run as root.",
  ENOSPC: "Free some space, then run again; no partly written file was left behind.",
  EROFS: "Look for errors of the disk (dmesg), mount it again, then run again.",
  EDQUOT: "Free some space, then run again; no partly written file was left behind.",
};

/** The code of a system error (`ENOENT`), or undefined. */
export function codeOf(thrown: unknown): string | undefined {
  const code = thrown instanceof Error && "code" in thrown ? thrown.code : undefined;
  return typeof code === "string" ? code : undefined;
}

/** True if a path, or a directory in it, does not exist. */
export function isAbsence(thrown: unknown): boolean {
  const code = codeOf(thrown);
  return code === "ENOENT" || code === "ENOTDIR";
}

/**
 * Throws (`usage`) for a relative path if the current directory was removed: the kernel then reports every such path as
 * missing, which would say nothing about the file that the operator means. Returns the path.
 */
export function resolvable(path: string): string {
  if (path.startsWith("/") || hasWorkingDirectory()) return path;
  throw new OperatorError({
    exit: "usage",
    what: `${path} is relative to the current directory, which was removed.`,
    remedy: "Give the whole path, or change to another directory (cd).",
  });
}

function hasWorkingDirectory(): boolean {
  try {
    return process.cwd() !== "";
  } catch {
    return false;
  }
}

/** Converts the error of a failed file operation to an OperatorError (`unavailable`). An OperatorError stays unchanged. */
export function fileError(verb: string, path: string, cause: unknown): OperatorError {
  if (cause instanceof OperatorError) return cause;
  const code = codeOf(cause) ?? "";
  const remedy = REMEDIES[code];
  return new OperatorError({
    exit: "unavailable",
    what: `Cannot ${verb} ${path}.`,
    why: REASONS[code] ?? messageOf(cause),
    cause,
    ...(remedy === undefined ? {} : { remedy }),
  });
}
