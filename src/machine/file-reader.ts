import { createHash } from "node:crypto";
import { constants, lstat, open, readdir, readFile, readlink, stat, statfs } from "node:fs/promises";
import { dirname, join } from "node:path";
import { OperatorError } from "../errors.ts";
import { fileError, isAbsence } from "./file-errors.ts";

/**
 * The hands and eyes of the tool, as types. `HostReader` only looks: a probe that writes does not
 * compile. `Host` is what apply gets. The real adapters are the other files of this folder.
 */

/** What the file system says of one path. */
export interface FileStat {
  readonly kind: "file" | "directory" | "symlink" | "other";
  /** Permission bits only: 0o600. */
  readonly mode: number;
  readonly sizeBytes: number;
  readonly uid: number;
  readonly modifiedAt: Date;
}

/** Looks at files. An absent path is `null`; one that can't be read throws an OperatorError. */
export interface FileReader {
  readText(path: string): Promise<string | null>;
  /** Does not follow a symbolic link. */
  stat(path: string): Promise<FileStat | null>;
  /** The names in a directory, sorted. */
  list(path: string): Promise<readonly string[] | null>;
  readLink(path: string): Promise<string | null>;
  /**
   * Lower-case hex sha256 over relative paths and contents of every file below a directory; with
   * `only`, of these entries of it (one that is missing does not count).
   */
  hashTree(path: string, only?: readonly string[]): Promise<string | null>;
  /** Free and total bytes of the file system that holds the path, or its nearest ancestor. */
  space(path: string): Promise<{ readonly freeBytes: number; readonly totalBytes: number }>;
}

/** The most that readText takes; nothing that the product reads whole comes near it. */
const MAX_TEXT_BYTES = 16 * 1024 ** 2;

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** Several steps ask for the same package's hash at once, and it is the dearest of all looks. */
const hashOnce = shareInFlight<string | null>();

/** Looks at the files of this machine. */
export const fileReader: FileReader = {
  readText: (path) => orNull("read", path, () => readWhole(path)),
  stat: (path) => orNull("look at", path, () => statOf(path)),
  list: (path) =>
    orNull("list", path, async () => (await requireDirectory(path), (await readdir(path)).sort())),
  readLink: (path) =>
    orNull("read", path, async () => ((await lstat(path)).isSymbolicLink() ? await readlink(path) : null)),
  hashTree: (path, only) =>
    hashOnce(JSON.stringify([path, only]), () =>
      orNull("read", path, async () => {
        await requireDirectory(path);
        return hashEntries(await entriesBelow(path, "", only));
      }),
    ),
  space: (path) => spaceOf(path),
};

/** Null where the path, or a part of it, is not there; every other failure as an OperatorError. */
async function orNull<T>(verb: string, path: string, look: () => Promise<T>): Promise<T | null> {
  try {
    return await look();
  } catch (thrown) {
    if (isAbsence(thrown)) return null;
    throw fileError(verb, path, thrown);
  }
}

async function readWhole(path: string): Promise<string> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const found = await file.stat();
    if (!found.isFile())
      throw refusal(path, found.isDirectory() ? "it is a directory" : "it is no plain file");
    if (found.size > MAX_TEXT_BYTES) throw refusal(path, `it is larger than ${MAX_TEXT_BYTES} bytes`);
    const bytes = await file.readFile();
    try {
      return decoder.decode(bytes);
    } catch (cause) {
      throw refusal(path, "it is no UTF-8 text", cause);
    }
  } finally {
    await file.close();
  }
}

async function statOf(path: string): Promise<FileStat> {
  const found = await lstat(path);
  const kind = found.isFile()
    ? "file"
    : found.isDirectory()
      ? "directory"
      : found.isSymbolicLink()
        ? "symlink"
        : "other";
  const { size, uid, mtime } = found;
  return { kind, mode: found.mode & 0o7777, sizeBytes: size, uid, modifiedAt: mtime };
}

async function requireDirectory(path: string): Promise<void> {
  if (!(await stat(path)).isDirectory()) throw refusal(path, "it is no directory");
}

async function entriesBelow(
  root: string,
  inside: string,
  only: readonly string[] | undefined,
): Promise<readonly TreeEntry[]> {
  const entries: TreeEntry[] = [];
  for (const entry of await readdir(join(root, inside), { withFileTypes: true })) {
    const path = inside === "" ? entry.name : `${inside}/${entry.name}`;
    if (!isWanted(path, only)) continue;
    if (entry.isDirectory()) entries.push(...(await entriesBelow(root, path, only)));
    else if (entry.isSymbolicLink()) {
      entries.push({ path, kind: "symlink", digest: digestOf(await readlink(join(root, path))) });
    } else if (entry.isFile()) {
      entries.push({ path, kind: "file", digest: digestOf(await readFile(join(root, path))) });
    } else throw refusal(join(root, path), "it is neither a file, a directory nor a link");
  }
  return entries;
}

async function spaceOf(path: string): Promise<{ readonly freeBytes: number; readonly totalBytes: number }> {
  try {
    const { bavail, blocks, bsize } = await statfs(path);
    return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
  } catch (thrown) {
    if (isAbsence(thrown) && dirname(path) !== path) return spaceOf(dirname(path));
    throw fileError("measure the space at", path, thrown);
  }
}

function refusal(path: string, why: string, cause?: unknown): OperatorError {
  return new OperatorError({ exit: "unavailable", what: `Cannot read ${path}.`, why, cause });
}

/** One file or symbolic link below a directory. */
interface TreeEntry {
  /** Relative to the directory, with forward slashes. */
  readonly path: string;
  readonly kind: "file" | "symlink";
  /** digestOf its content; of its target, for a link. */
  readonly digest: string;
}

/** Lower-case hex sha256. */
export function digestOf(content: Uint8Array | string): string {
  return createHash("sha256").update(content).digest("hex");
}

/**
 * Lower-case hex sha256 over relative paths, kinds and contents, whatever the order they come in; modes,
 * times and empty directories do not count.
 */
export function hashEntries(entries: readonly TreeEntry[]): string {
  const sorted = [...entries].sort((a, b) => (a.path < b.path ? -1 : 1));
  return digestOf(sorted.map(({ path, kind, digest }) => `${kind}\0${path}\0${digest}\n`).join(""));
}

/** True for a relative path that is one of these entries, lies inside one or leads to one; all are when none is named. */
export function isWanted(path: string, only: readonly string[] | undefined): boolean {
  return (
    only === undefined ||
    only.some((entry) => `${path}/`.startsWith(`${entry}/`) || entry.startsWith(`${path}/`))
  );
}

/**
 * Makes a function that lets all who ask the same thing while it is being looked up share one look.
 * Nothing is remembered: whoever asks after the answer has come makes it be looked up again.
 */
export function shareInFlight<T>(): (question: string, look: () => Promise<T>) => Promise<T> {
  const underWay = new Map<string, Promise<T>>();
  return (question, look) => {
    const shared = underWay.get(question);
    if (shared !== undefined) return shared;
    const answer = look().finally(() => underWay.delete(question));
    underWay.set(question, answer);
    return answer;
  };
}
