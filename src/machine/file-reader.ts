import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import {
  constants,
  lstat,
  open,
  readdir,
  readFile,
  readlink,
  realpath,
  stat,
  statfs,
} from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { OperatorError } from "../errors.ts";
import { fileError, isAbsence, resolvable } from "./file-errors.ts";

/**
 * Access to the machine. `HostReader` (host.ts) can only read, so a probe that writes does not compile.
 * `apply` gets `Host`, which can also write. The other files of this folder are the real implementations.
 */

/** The file system's data about one path. */
export interface FileStat {
  readonly kind: "file" | "directory" | "symlink" | "other";
  /** Permission bits only: 0o600. */
  readonly mode: number;
  readonly sizeBytes: number;
  readonly uid: number;
  readonly modifiedAt: Date;
}

/** Names a kind of file in a sentence: `it is a symlink`, `it is a device, pipe or socket`. */
export function nameOfKind(kind: FileStat["kind"]): string {
  return kind === "other" ? "device, pipe or socket" : kind;
}

/** Reads files. The result is `null` if the path does not exist. If it can't be read, throws an OperatorError. */
export interface FileReader {
  readText(path: string): Promise<string | null>;
  /** Does not follow a symbolic link. */
  stat(path: string): Promise<FileStat | null>;
  /** The names in a directory, sorted. */
  list(path: string): Promise<readonly string[] | null>;
  readLink(path: string): Promise<string | null>;
  /** The path without symbolic links, as the kernel resolves it. Null also for a link whose target is missing. */
  realPath(path: string): Promise<string | null>;
  /**
   * Lower-case hex sha256 over the relative paths and contents of every file below a directory. With
   * `only`, over these entries; missing ones are ignored.
   */
  hashTree(path: string, only?: readonly string[]): Promise<string | null>;
  /** How full the file system is that holds the path, or its nearest ancestor. */
  space(path: string): Promise<Space>;
}

/** Free and total bytes and inodes of a file system. Total inodes are 0 where it has no fixed number of them (btrfs). */
export interface Space {
  readonly freeBytes: number;
  readonly totalBytes: number;
  readonly freeInodes: number;
  readonly totalInodes: number;
}

/** The limit of readText. The files that fula-node reads completely are far smaller. */
const MAX_TEXT_BYTES = 16 * 1024 ** 2;

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** Several steps request the hash of the same package at the same time, and it is the slowest read. */
const hashOnce = shareInFlight<string | null>();

/** Reads the files of this machine. */
export const fileReader: FileReader = {
  readText: (path) => orNull("read", path, () => readWhole(path)),
  stat: (path) => orNull("inspect", path, () => statOf(path)),
  list: (path) =>
    orNull("list", path, async () => (await requireDirectory(path), (await readdir(path)).sort())),
  readLink: (path) =>
    orNull("read", path, async () => ((await lstat(path)).isSymbolicLink() ? await readlink(path) : null)),
  realPath: (path) => orNull("resolve", path, () => realpath(path)),
  hashTree: (path, only) =>
    hashOnce(JSON.stringify([path, only]), () =>
      orNull("read", path, async () => {
        await requireDirectory(path);
        return hashEntries(await entriesBelow(path, "", only));
      }),
    ),
  space: (path) => spaceOf(path),
};

/** Returns null if the path does not exist. Throws an OperatorError for every other error. */
async function orNull<T>(verb: string, path: string, read: () => Promise<T>): Promise<T | null> {
  resolvable(path);
  try {
    return await read();
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
      throw refusal(path, found.isDirectory() ? "it is a directory" : "it is not a regular file");
    if (found.size > MAX_TEXT_BYTES) throw refusal(path, `it is larger than ${MAX_TEXT_BYTES} bytes`);
    const bytes = await file.readFile();
    try {
      return decoder.decode(bytes);
    } catch (cause) {
      throw refusal(path, "it is not UTF-8 text", cause);
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
  if (!(await stat(path)).isDirectory()) throw refusal(path, "it is not a directory");
}

async function entriesBelow(
  root: string,
  inside: string,
  only: readonly string[] | undefined,
): Promise<readonly TreeEntry[]> {
  const entries: TreeEntry[] = [];
  for (const entry of await readdir(join(root, inside), { withFileTypes: true })) {
    const path = inside === "" ? entry.name : `${inside}/${entry.name}`;
    if (!isIncluded(path, only)) continue;
    if (entry.isDirectory()) entries.push(...(await entriesBelow(root, path, only)));
    else if (entry.isSymbolicLink()) {
      entries.push({ path, kind: "symlink", digest: digestOf(await readlink(join(root, path))) });
    } else if (entry.isFile()) {
      // Synchronous: for a hundred small files this takes a tenth of the time of promises.
      entries.push({ path, kind: "file", digest: digestOf(readFileSync(join(root, path))) });
    } else throw refusal(join(root, path), "it is not a file, directory or symbolic link");
  }
  return entries;
}

async function spaceOf(path: string): Promise<Space> {
  try {
    const { bavail, blocks, bsize, ffree, files } = await statfs(path);
    return {
      freeBytes: bavail * bsize,
      totalBytes: blocks * bsize,
      freeInodes: ffree,
      totalInodes: files,
    };
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
  /** The digest of its content, or of its target if it is a link. */
  readonly digest: string;
}

/** Lower-case hex sha256. */
export function digestOf(content: Uint8Array | string): string {
  return createHash("sha256").update(content).digest("hex");
}

/**
 * Lower-case hex sha256 over relative paths, kinds and contents, independent of their order. Modes,
 * times and empty directories are ignored.
 */
export function hashEntries(entries: readonly TreeEntry[]): string {
  const sorted = [...entries].sort((a, b) => (a.path < b.path ? -1 : 1));
  return digestOf(sorted.map(({ path, kind, digest }) => `${kind}\0${path}\0${digest}\n`).join(""));
}

/** True if a relative path is one of these entries, inside one, or a parent of one. Without `only` always true. */
export function isIncluded(path: string, only: readonly string[] | undefined): boolean {
  return (
    only === undefined ||
    only.some((entry) => `${path}/`.startsWith(`${entry}/`) || entry.startsWith(`${path}/`))
  );
}

/**
 * Creates a function that lets concurrent calls with the same key share one run of `read`.
 * Nothing is cached: a call after the result has arrived runs `read` again.
 */
export function shareInFlight<T>(): (key: string, read: () => Promise<T>) => Promise<T> {
  const inFlight = new Map<string, Promise<T>>();
  return (key, read) => {
    const shared = inFlight.get(key);
    if (shared !== undefined) return shared;
    const result = read().finally(() => inFlight.delete(key));
    inFlight.set(key, result);
    return result;
  };
}

/** The list of everything that is mounted, as this process sees it (proc(5)). */
export const MOUNTS = "/proc/self/mountinfo";

/** What is mounted on a path or below it, by its real path; null if nothing is. A link at the end is not followed. */
export async function findMount(path: string): Promise<string | null> {
  const [text, parent] = await Promise.all([readFile(MOUNTS, "utf8"), realpath(dirname(path))]);
  const real = join(parent, basename(path));
  return [...mountPointsOf(text)].find((one) => one === real || one.startsWith(`${real}/`)) ?? null;
}

/** The directories on which a file system is mounted, from the text of /proc/self/mountinfo (proc(5)). */
export function mountPointsOf(mountinfo: string): ReadonlySet<string> {
  const places = mountinfo.split("\n").flatMap((line) => line.split(" ").slice(4, 5));
  // Spaces and similar characters are written as three octal digits.
  const unescape = (text: string) =>
    text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)));
  return new Set(places.map(unescape));
}
