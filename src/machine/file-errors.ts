import { messageOf, OperatorError } from "../errors.ts";

const REASONS: Readonly<Record<string, string>> = {
  EACCES: "this user may not",
  EDQUOT: "the disk quota is used up",
  EIO: "the disk reports an error",
  EISDIR: "it is a directory",
  ELOOP: "too many symbolic links",
  ENAMETOOLONG: "the name is too long",
  ENOENT: "it is not there",
  ENOSPC: "no space is left on the device",
  ENOTDIR: "a part of its path is no directory",
  EPERM: "the kernel does not allow it",
  EROFS: "the file system is read-only",
};

const REMEDIES: Readonly<Record<string, string>> = {
  EACCES: "Run as root.",
  ENOSPC: "Free some space, then run again; nothing half-written was left behind.",
  EDQUOT: "Free some space, then run again; nothing half-written was left behind.",
};

/** The code of a system error (`ENOENT`), or undefined. */
export function codeOf(thrown: unknown): string | undefined {
  const code = thrown instanceof Error && "code" in thrown ? thrown.code : undefined;
  return typeof code === "string" ? code : undefined;
}

/** True where a path, or the directory that it should be in, does not exist. */
export function isAbsence(thrown: unknown): boolean {
  const code = codeOf(thrown);
  return code === "ENOENT" || code === "ENOTDIR";
}

/** A failed call on a path as an OperatorError (`unavailable`); one that is already there stays as it is. */
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
