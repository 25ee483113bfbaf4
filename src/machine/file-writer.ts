import { randomBytes } from "node:crypto";
import type { Stats } from "node:fs";
import {
  chmod,
  constants,
  copyFile,
  type FileHandle,
  lchown,
  lstat,
  mkdir,
  open,
  readdir,
  readlink,
  rename,
  rm,
  rmdir,
  stat,
  symlink,
} from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { OperatorError } from "../errors.ts";
import { codeOf, fileError, isAbsence } from "./file-errors.ts";
import { fileReader, type FileReader, findMount, isIncluded } from "./file-reader.ts";
import { giveTree, type Owner } from "./tree-owner.ts";

/** Writes files: completely or not at all, with the right mode from the start. */
export interface Files extends FileReader {
  /** Writes a temporary file, fsyncs it, renames it, and fsyncs the directory. Creates missing parents (0755). */
  writeAtomic(path: string, text: string, options: { readonly mode: number }): Promise<void>;
  makeDirectory(path: string, options: { readonly mode: number }): Promise<void>;
  chmod(path: string, mode: number): Promise<void>;
  /** Changes the owner and the group. Does not follow a link. */
  chown(path: string, uid: number, gid: number): Promise<void>;
  /**
   * Gives a directory and everything in it to an owner; only the owner may enter it (0700). The directory itself comes
   * last, so it keeps its old owner until all is done. Follows no link and enters no mount below it.
   */
  giveTree(path: string, owner: Owner, report: (line: string) => void): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Removes a file or a tree. A missing path is not an error. Throws if something is mounted on it or below it. */
  remove(path: string): Promise<void>;
  /** Removes an empty directory. Anything else stays. A missing path is not an error. */
  removeEmptyDirectory(path: string): Promise<void>;
  /**
   * Copies a tree (with `only`: these entries) to a temporary name, fsyncs it and renames it into place.
   * Replaces an existing tree.
   */
  copyTree(from: string, to: string, only?: readonly string[]): Promise<void>;
  /** Points a symbolic link at a target, atomically. */
  link(target: string, path: string): Promise<void>;
  /** Appends one line and fsyncs it, instead of a last line that a crash cut off; a new file gets the mode. Creates missing parents (0755). */
  append(path: string, line: string, options: { readonly mode: number }): Promise<void>;
}

type Writer = Omit<Files, keyof FileReader>;

const PARENT_MODE = 0o755;

/** Writes files of this machine: completely or not at all, and durable when the call returns. */
const fileWriter: Writer = {
  writeAtomic: (path, text, { mode }) =>
    wrapErrors("write", path, () =>
      replacing(path, async (temporary) => {
        const file = await open(temporary, "wx", mode);
        try {
          await file.chmod(mode);
          await file.writeFile(text, "utf8");
          await file.sync();
        } finally {
          await file.close();
        }
      }),
    ),
  append: (path, line, { mode }) => wrapErrors("write", path, () => appendLine(path, line, mode)),
  makeDirectory: (path, { mode }) =>
    wrapErrors("make the directory", path, async () => {
      await makeParents(path);
      await mkdir(path, { mode }).catch(async (thrown: unknown) => {
        if (codeOf(thrown) !== "EEXIST" || !(await stat(path)).isDirectory()) throw thrown;
      });
      await chmod(path, mode);
      await sync(path);
      await sync(dirname(path));
    }),
  chmod: (path, mode) =>
    wrapErrors("change the mode of", path, async () => {
      await chmod(path, mode);
      await syncIfPossible(path, await stat(path));
    }),
  chown: (path, uid, gid) =>
    wrapErrors("change the owner of", path, async () => {
      await lchown(path, uid, gid);
      await syncIfPossible(path, await lstat(path));
    }),
  giveTree: (path, owner, report) =>
    wrapErrors("change the owner of", path, () => giveTree(path, owner, report)),
  rename: (from, to) =>
    wrapErrors("rename", from, async () => {
      await rename(from, to);
      await sync(dirname(to));
      if (dirname(from) !== dirname(to)) await sync(dirname(from));
    }),
  remove: (path) =>
    wrapErrors("remove", path, async () => {
      await removeTree(path);
      await sync(dirname(path)).catch((thrown: unknown) => {
        if (!isAbsence(thrown)) throw thrown;
      });
    }),
  removeEmptyDirectory: (path) =>
    wrapErrors("remove the directory", path, async () => {
      try {
        await rmdir(path);
      } catch (thrown) {
        if (isAbsence(thrown) || ["ENOTEMPTY", "EEXIST", "EBUSY"].includes(codeOf(thrown) ?? "")) return;
        throw thrown;
      }
      await sync(dirname(path));
    }),
  copyTree: (from, to, only) =>
    wrapErrors("copy to", to, () => replacing(to, (temporary) => copyBelow(from, temporary, "", only))),
  link: (target, path) =>
    wrapErrors("link", path, async () => {
      if ((await kindOf(path)) === "directory") throw refusal("link", path, "it is a directory");
      await replacing(path, (temporary) => symlink(target, temporary));
    }),
};

/** rm would empty what is mounted below a tree before it fails. */
async function removeTree(path: string): Promise<void> {
  const mount = await findMount(path).catch((thrown: unknown) => {
    if (isAbsence(thrown)) return null;
    throw thrown;
  });
  if (mount !== null) throw refusal("remove", path, `a file system is mounted on ${mount}`);
  await rm(path, { recursive: true, force: true });
}

async function wrapErrors(verb: string, path: string, write: () => Promise<void>): Promise<void> {
  try {
    await write();
  } catch (thrown) {
    throw fileError(verb, path, thrown);
  }
}

/**
 * Creates something under a temporary name next to the path and renames it into place. On an error the
 * temporary is removed. Temporaries of killed runs are removed, too.
 */
export async function replacing(path: string, make: (temporary: string) => Promise<void>): Promise<void> {
  await makeParents(path);
  await removeLeftovers(path);
  const temporary = temporaryName(path);
  try {
    await make(temporary);
    await moveInto(temporary, path);
  } catch (thrown) {
    await rm(temporary, { recursive: true, force: true });
    throw thrown;
  }
  await sync(dirname(path));
}

/** rename(2) can replace only an empty directory with a directory, so an existing tree is moved away first. */
async function moveInto(temporary: string, path: string): Promise<void> {
  const isTree = (await lstat(temporary)).isDirectory();
  const there = await kindOf(path);
  if (!isTree || there === null) {
    if (there === "directory") throw refusal("write", path, "it is a directory");
    await rename(temporary, path);
    return;
  }
  const old = temporaryName(path);
  await rename(path, old);
  await rename(temporary, path);
  // Else a power cut could keep the old name and lose what is below it.
  await sync(dirname(path));
  await rm(old, { recursive: true, force: true });
}

async function copyBelow(
  from: string,
  to: string,
  inside: string,
  only: readonly string[] | undefined,
): Promise<void> {
  const source = join(from, inside);
  const target = join(to, inside);
  await mkdir(target, { mode: 0o700 });
  for (const entry of await readdir(source, { withFileTypes: true })) {
    const path = inside === "" ? entry.name : `${inside}/${entry.name}`;
    if (!isIncluded(path, only)) continue;
    if (entry.isDirectory()) await copyBelow(from, to, path, only);
    else if (entry.isSymbolicLink()) await symlink(await readlink(join(from, path)), join(to, path));
    else if (entry.isFile()) await copyOne(join(from, path), join(to, path));
    else throw refusal("copy", join(from, path), "it is not a file, directory or symbolic link");
  }
  await chmod(target, (await stat(source)).mode & 0o7777);
  await sync(target);
}

/** copyFile also copies the mode. */
async function copyOne(from: string, to: string): Promise<void> {
  await copyFile(from, to, constants.COPYFILE_EXCL);
  const file = await open(to, "r+");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

async function appendLine(path: string, line: string, mode: number): Promise<void> {
  await makeParents(path);
  const created = await open(path, "ax", mode).catch((thrown: unknown) => {
    if (codeOf(thrown) !== "EEXIST") throw thrown;
    return null;
  });
  const file = created ?? (await open(path, "a+"));
  try {
    if (created !== null) await created.chmod(mode);
    await cutHalfLine(file);
    await file.writeFile(`${line}\n`, "utf8");
    await file.sync();
  } finally {
    await file.close();
  }
  if (created !== null) await sync(dirname(path));
}

const CHUNK_BYTES = 64 * 1024;

/** Removes the part of a last line that a crash left: it never counted as written. */
async function cutHalfLine(file: FileHandle): Promise<void> {
  const { size } = await file.stat();
  const chunk = Buffer.alloc(CHUNK_BYTES);
  for (let end = size; end > 0;) {
    const start = Math.max(0, end - CHUNK_BYTES);
    const { bytesRead } = await file.read(chunk, 0, end - start, start);
    const newline = chunk.subarray(0, bytesRead).lastIndexOf("\n");
    if (newline >= 0) {
      if (start + newline + 1 < size) await file.truncate(start + newline + 1);
      return;
    }
    end = start;
  }
  if (size > 0) await file.truncate(0);
}

async function makeParents(path: string): Promise<void> {
  await makeDirectories(dirname(path), PARENT_MODE);
}

/** Creates a directory and its missing parents, all with this mode, and syncs each one into its parent. */
export async function makeDirectories(path: string, mode: number): Promise<void> {
  const first = await mkdir(path, { recursive: true, mode });
  if (first === undefined) return;
  for (let made = path; made.length >= first.length; made = dirname(made)) {
    await chmod(made, mode);
    await sync(dirname(made));
  }
}

/** Links, sockets and pipes cannot be synced. */
async function syncIfPossible(path: string, stats: Stats): Promise<void> {
  if (stats.isFile() || stats.isDirectory()) await sync(path);
}

/** Syncs a file, or the names in a directory, to the disk, with its mode and owner. */
export async function sync(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function kindOf(path: string): Promise<"directory" | "other" | null> {
  try {
    return (await lstat(path)).isDirectory() ? "directory" : "other";
  } catch (thrown) {
    if (isAbsence(thrown)) return null;
    throw thrown;
  }
}

function temporaryName(path: string): string {
  return join(
    dirname(path),
    `.${basename(path)}${TEMPORARY_MARK}${process.pid}.${randomBytes(6).toString("hex")}`,
  );
}

/** Removes temporaries next to the path whose process no longer exists. */
export async function removeLeftovers(path: string): Promise<void> {
  const prefix = `.${basename(path)}${TEMPORARY_MARK}`;
  for (const name of await readdir(dirname(path))) {
    if (!name.startsWith(prefix)) continue;
    const pid = Number(name.slice(prefix.length).split(".")[0]);
    if (!isAlive(pid)) await rm(join(dirname(path), name), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  if (!Number.isSafeInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (thrown) {
    return codeOf(thrown) === "EPERM";
  }
}

function refusal(verb: string, path: string, why: string): OperatorError {
  return new OperatorError({ exit: "unavailable", what: `Cannot ${verb} ${path}.`, why });
}

/** Reads and writes the files of this machine. */
export const files: Files = { ...fileReader, ...fileWriter };

/** Part of the name of everything that is still being written: `.NAME.fula-node-tmp.PID.x`. */
export const TEMPORARY_MARK = ".fula-node-tmp.";

/** True for the name of a temporary, which a killed run can leave behind. */
export function isTemporary(name: string): boolean {
  return name.startsWith(".") && name.includes(TEMPORARY_MARK);
}
