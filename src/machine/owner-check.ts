import { dirname, resolve } from "node:path";
import type { FileReader, FileStat } from "./file-reader.ts";

/** One part of a path: the file itself, one of its directories, or a symbolic link on the way. */
export interface PathPart {
  readonly path: string;
  /** Null if it does not exist. */
  readonly stat: Pick<FileStat, "kind" | "mode" | "uid"> | null;
}

const OTHERS_WRITE = 0o022;
const MAX_LINKS = 20;

/**
 * Says who else could change what root runs or trusts, or returns null. As in the StrictModes of sshd (auth_secure_path),
 * each part must belong to root or to `uid`, and nobody else may write to it. The mode of a symbolic link means nothing.
 */
export function findUnsafePart(parts: readonly PathPart[], uid: number): string | null {
  for (const { path, stat } of parts) {
    if (stat === null) return `${path} does not exist`;
    if (stat.uid !== 0 && stat.uid !== uid) return `${path} belongs to the user with uid ${stat.uid}`;
    if (stat.kind !== "symlink" && (stat.mode & OTHERS_WRITE) !== 0)
      return `other users can write to ${path} (mode ${stat.mode.toString(8)})`;
  }
  return null;
}

/**
 * The parts of an absolute path, from / to the file, and after each symbolic link those of its target. The last part
 * is the file itself: no part after it is a link.
 */
export async function readPathParts(
  files: Pick<FileReader, "stat" | "readLink">,
  path: string,
): Promise<readonly PathPart[]> {
  const parts: PathPart[] = [{ path: "/", stat: await files.stat("/") }];
  let waiting = namesOf(path);
  let at = "/";
  for (let links = 0; waiting.length > 0;) {
    const [name = "", ...rest] = waiting;
    const next = resolve(at, name);
    const stat = await files.stat(next);
    parts.push({ path: next, stat });
    if (stat === null) return parts;
    const target = stat.kind === "symlink" ? await files.readLink(next) : null;
    if (target === null) {
      at = next;
      waiting = rest;
      continue;
    }
    links += 1;
    if (links > MAX_LINKS) return [...parts, { path: next, stat: null }];
    at = "/";
    waiting = [...namesOf(resolve(dirname(next), target)), ...rest];
  }
  return parts;
}

function namesOf(path: string): readonly string[] {
  return path.split("/").filter((name) => name !== "");
}
