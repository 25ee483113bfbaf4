import { posix } from "node:path";
import { OperatorError } from "../errors.ts";
import type { FileReader, FileStat } from "./file-reader.ts";

/** One reason why a path is not root's alone: somebody else could change it, or replace it. */
export interface OwnerFault {
  /** The path itself, a directory above it, or a link on the way. */
  readonly path: string;
  readonly kind: FileStat["kind"];
  /** `/opt belongs to user 1000, not to root`. Without a full stop. */
  readonly sentence: string;
  /** The command that repairs it. */
  readonly repair: string;
}

const GROUP_OR_OTHERS_WRITE = 0o022;
const OTHERS_WRITE = 0o002;
const STICKY = 0o1000;
const MAX_LINKS = 40;

/**
 * The rule, as StrictModes in sshd_config(5): a path belongs to root, and neither its group nor others can write to it.
 * Null if that is so. A link has no mode of its own, so only its owner counts.
 */
export function judgeOwner(path: string, { kind, uid, mode }: FileStat): OwnerFault | null {
  if (uid !== 0) {
    const repair = `chown ${kind === "symlink" ? "-h " : ""}root:root ${path}`;
    return { path, kind, sentence: `${path} belongs to user ${uid}, not to root`, repair };
  }
  if (kind === "symlink" || (mode & GROUP_OR_OTHERS_WRITE) === 0) return null;
  const who = (mode & OTHERS_WRITE) === 0 ? "its group" : "every user";
  const sentence = `${who} can write to ${path} (mode ${mode.toString(8)})`;
  return { path, kind, sentence, repair: `chmod go-w ${path}` };
}

/** In a directory with the sticky bit, such as /tmp, nobody can remove or rename what belongs to root. */
function judgeParent(path: string, stat: FileStat): OwnerFault | null {
  return stat.uid === 0 && (stat.mode & STICKY) !== 0 ? null : judgeOwner(path, stat);
}

/** A fault on the way to a path. */
export interface OwnerFaultOnWay extends OwnerFault {
  /** True for a directory above it, or a link on the way. False for the file or directory itself. */
  readonly isAbove: boolean;
}

/**
 * Every fault of a path and of the directories above it, from `/` down. A link is followed: the link, and everything on
 * the way to its target, is judged too. Ends at the first part that does not exist. [] if root alone can change it.
 */
export async function findOwnerFaults(
  files: Pick<FileReader, "stat" | "readLink">,
  path: string,
): Promise<readonly OwnerFaultOnWay[]> {
  const faults = new Map<string, OwnerFaultOnWay>();
  const waiting = partsOf(path);
  let at = "/";
  let links = 0;
  for (;;) {
    const stat = await files.stat(at);
    if (stat === null) break;
    const isEnd = waiting.length === 0;
    const fault = isEnd || stat.kind === "symlink" ? judgeOwner(at, stat) : judgeParent(at, stat);
    if (fault !== null) faults.set(at, { ...fault, isAbove: !isEnd || stat.kind === "symlink" });
    if (stat.kind === "symlink") {
      links += 1;
      if (links > MAX_LINKS) throw loop(path);
      const target = (await files.readLink(at)) ?? "";
      waiting.unshift(...partsOf(target));
      at = target.startsWith("/") ? "/" : posix.dirname(at);
      continue;
    }
    const next = waiting.shift();
    if (next === undefined) break;
    // `at` has no link in it, so `..` is its parent.
    at = posix.join(at, next);
  }
  return [...faults.values()];
}

/** The faults of a directory and of everything below it, the directory first. Links are not followed. */
export async function findTreeFaults(
  files: Pick<FileReader, "stat" | "list">,
  path: string,
): Promise<readonly OwnerFault[]> {
  const stat = await files.stat(path);
  if (stat === null) return [];
  const own = judgeOwner(path, stat);
  const names = stat.kind === "directory" ? ((await files.list(path)) ?? []) : [];
  const below = await Promise.all(names.map((name) => findTreeFaults(files, posix.join(path, name))));
  return [...(own === null ? [] : [own]), ...below.flat()];
}

/**
 * Whether a user without privileges can read a file: by its owner or its mode for others, and so for every directory on
 * the way. Groups count as others. `path` has no link in it. False if there is no such file.
 */
export async function canRead(files: Pick<FileReader, "stat">, uid: number, path: string): Promise<boolean> {
  const places = partsOf(path).map((_, index, parts) => `/${parts.slice(0, index + 1).join("/")}`);
  const stats = await Promise.all(places.map((place) => files.stat(place)));
  return stats.every((stat, index) => {
    if (stat === null) return false;
    const bits = stat.uid === uid ? stat.mode >> 6 : stat.mode;
    return (bits & (index === stats.length - 1 ? 4 : 1)) !== 0;
  });
}

function partsOf(path: string): string[] {
  return path.split("/").filter((part) => part !== "" && part !== ".");
}

function loop(path: string): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `Cannot find out who can change ${path}.`,
    why: `It has more than ${MAX_LINKS} symbolic links.`,
    remedy: "Remove the links that point at each other.",
  });
}
