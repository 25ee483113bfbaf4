import { randomBytes } from "node:crypto";
import {
  chmod,
  constants,
  copyFile,
  type FileHandle,
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
import { fileReader, type FileReader, isWanted } from "./file-reader.ts";

/** Writes files: whole or not at all, with their mode from the start. */
export interface Files extends FileReader {
  /** Temporary name beside it, fsync, rename, fsync of the directory. Makes missing parents (0755). */
  writeAtomic(path: string, text: string, options: { readonly mode: number }): Promise<void>;
  makeDirectory(path: string, options: { readonly mode: number }): Promise<void>;
  chmod(path: string, mode: number): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** Removes a file or a tree; an absent one is fine, and a mount point is emptied. */
  remove(path: string): Promise<void>;
  /** Removes a directory that holds nothing; anything else stays, an absent one is fine. */
  removeEmptyDirectory(path: string): Promise<void>;
  /**
   * Copies a tree (with `only`: these entries of it) under a temporary name, fsyncs it and renames it
   * into place, replacing what is there.
   */
  copyTree(from: string, to: string, only?: readonly string[]): Promise<void>;
  /** Points a symbolic link at a target, atomically. */
  link(target: string, path: string): Promise<void>;
  /** Appends one line and fsyncs it; a new file gets the mode. Makes missing parents (0755). */
  append(path: string, line: string, options: { readonly mode: number }): Promise<void>;
}

type Writer = Omit<Files, keyof FileReader>;

const PARENT_MODE = 0o755;

/** Writes files of this machine: whole or not at all, and durable when the call returns. */
const fileWriter: Writer = {
  writeAtomic: (path, text, { mode }) =>
    told("write", path, () =>
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
  append: (path, line, { mode }) => told("write", path, () => appendLine(path, line, mode)),
  makeDirectory: (path, { mode }) =>
    told("make the directory", path, async () => {
      await makeParents(path);
      await mkdir(path, { mode }).catch(async (thrown: unknown) => {
        if (codeOf(thrown) !== "EEXIST" || !(await stat(path)).isDirectory()) throw thrown;
      });
      await chmod(path, mode);
      await syncDirectory(dirname(path));
    }),
  chmod: (path, mode) => told("change the mode of", path, () => chmod(path, mode)),
  rename: (from, to) =>
    told("rename", from, async () => {
      await rename(from, to);
      await syncDirectory(dirname(to));
      if (dirname(from) !== dirname(to)) await syncDirectory(dirname(from));
    }),
  remove: (path) =>
    told("remove", path, async () => {
      await removeTree(path);
      await syncDirectory(dirname(path)).catch((thrown: unknown) => {
        if (!isAbsence(thrown)) throw thrown;
      });
    }),
  removeEmptyDirectory: (path) =>
    told("remove the directory", path, async () => {
      try {
        await rmdir(path);
      } catch (thrown) {
        if (isAbsence(thrown) || ["ENOTEMPTY", "EEXIST", "EBUSY"].includes(codeOf(thrown) ?? "")) return;
        throw thrown;
      }
      await syncDirectory(dirname(path));
    }),
  copyTree: (from, to, only) =>
    told("copy to", to, () => replacing(to, (temporary) => copyBelow(from, temporary, "", only))),
  link: (target, path) =>
    told("link", path, async () => {
      if ((await kindOf(path)) === "directory") throw refusal("link", path, "it is a directory");
      await replacing(path, (temporary) => symlink(target, temporary));
    }),
};

/** A mount point refuses to be removed before rm has looked into it: it is emptied then, and stays. */
async function removeTree(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
  } catch (thrown) {
    if (codeOf(thrown) !== "EBUSY" || (await kindOf(path)) !== "directory") throw thrown;
    for (const name of await readdir(path)) await removeTree(join(path, name));
    if ((await readdir(path)).length > 0) throw thrown;
  }
}

async function told(verb: string, path: string, write: () => Promise<void>): Promise<void> {
  try {
    await write();
  } catch (thrown) {
    throw fileError(verb, path, thrown);
  }
}

/**
 * Makes something under a temporary name beside the path and renames it into place; a failure takes the
 * temporary away again, and what a killed run left there goes too.
 */
async function replacing(path: string, make: (temporary: string) => Promise<void>): Promise<void> {
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
  await syncDirectory(dirname(path));
}

/** Nothing but an empty directory can be replaced by renaming a directory onto it, so an old one steps aside. */
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
    if (!isWanted(path, only)) continue;
    if (entry.isDirectory()) await copyBelow(from, to, path, only);
    else if (entry.isSymbolicLink()) await symlink(await readlink(join(from, path)), join(to, path));
    else if (entry.isFile()) await copyOne(join(from, path), join(to, path));
    else throw refusal("copy", join(from, path), "it is neither a file, a directory nor a link");
  }
  await chmod(target, (await stat(source)).mode & 0o7777);
  await syncDirectory(target);
}

/** copyFile gives the copy its mode. */
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
    const gap = (await endsInLine(file)) ? "" : "\n";
    await file.writeFile(`${gap}${line}\n`, "utf8");
    await file.sync();
  } finally {
    await file.close();
  }
  if (created !== null) await syncDirectory(dirname(path));
}

/** False where the last line was cut short by a crash. */
async function endsInLine(file: FileHandle): Promise<boolean> {
  const { size } = await file.stat();
  if (size === 0) return true;
  const last = Buffer.alloc(1);
  await file.read(last, 0, 1, size - 1);
  return last.toString() === "\n";
}

async function makeParents(path: string): Promise<void> {
  const parent = dirname(path);
  const first = await mkdir(parent, { recursive: true, mode: PARENT_MODE });
  if (first === undefined) return;
  for (let made = parent; made.length >= first.length; made = dirname(made)) {
    await chmod(made, PARENT_MODE);
    await syncDirectory(dirname(made));
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
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

/** Takes away what runs that are dead by now had begun beside the path. */
async function removeLeftovers(path: string): Promise<void> {
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

/** The files of this machine, to look at and to write. */
export const files: Files = { ...fileReader, ...fileWriter };

/** Stands in the name of everything that is being written and not yet in its place: `.NAME.fula-node-tmp.PID.x`. */
export const TEMPORARY_MARK = ".fula-node-tmp.";

/** True for what a killed run left half-written. */
export function isTemporary(name: string): boolean {
  return name.startsWith(".") && name.includes(TEMPORARY_MARK);
}
