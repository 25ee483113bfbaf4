import { existsSync, readdirSync, rmSync, type Stats } from "node:fs";
import {
  access,
  chmod,
  chown,
  constants,
  type FileHandle,
  lstat,
  mkdir,
  open,
  readdir,
  rename,
  rm,
  stat,
} from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { OperatorError } from "../errors.ts";
import { fileError, isAbsence } from "../machine/file-errors.ts";
import { sync } from "../machine/file-writer.ts";
import { DUMP_FILE } from "../settings/layout.ts";
import { decimalBytes } from "../units.ts";
import { readArchiveFile, writeAll } from "./archive-file.ts";
import { type BackupManifest, damaged, FIRST_ENTRY } from "./backup-manifest.ts";
import { type EntryHead, type EntrySink, type ReadArchive, readArchive } from "./archive-reader.ts";
import { decrypt, type Opener } from "./encryption.ts";
import { PLACES } from "./node-files.ts";

export const ENV_ENTRY = `${PLACES.base}/.env`;
/** What stays free: others write to that disk, too. */
const SPACE_MORE_BYTES = 512 * 1024 ** 2;

/** Reads all of an archive and writes nothing. Throws (`integrity`, `newer`, `settings`) for one that is not good. */
export function verifyArchive(file: string, opener: Opener): Promise<ReadArchive> {
  return readArchive(decrypt(readArchiveFile(file), opener, basename(file)), {
    manifest: () => {},
    entry: () => Promise.resolve(null),
  });
}

/**
 * Reads all of an archive: nothing of it was changed or cut off since it was encrypted. Takes a fraction of the time of verifyArchive,
 * which also unpacks it and compares it with its list. Writes nothing. Returns bytes that it has at least when it is unpacked. Throws
 * (`integrity`, `settings`).
 */
export async function requireUnchanged(file: string, opener: Opener): Promise<number> {
  const parts = decrypt(readArchiveFile(file), opener, basename(file));
  let end: Buffer = Buffer.alloc(0);
  for (;;) {
    const { done, value } = await parts.next();
    // The last four bytes of a gzip file are its size unpacked, modulo 4 GiB (RFC 1952).
    if (done === true) return end.length < 4 ? 0 : end.readUInt32LE(end.length - 4);
    end = Buffer.concat([end.subarray(-4), value.subarray(-4)]);
  }
}

/** Where an archive is unpacked before all of it is there. */
export function partialOf(directory: string): string {
  return join(dirname(directory), `.${basename(directory)}.backup-partial`);
}

/** Ends the reading of an archive of which enough is known. */
class Enough extends Error {}

/**
 * The manifest of an archive, and its `.env`, which come first. Reads only its beginning: what comes later may still be damaged.
 * Throws (`integrity`, `newer`, `settings`) if these can't be read.
 */
export async function previewArchive(
  file: string,
  opener: Opener,
): Promise<{ readonly manifest: BackupManifest; readonly env: string }> {
  let manifest: BackupManifest | null = null;
  const chunks: Buffer[] = [];
  try {
    await readArchive(decrypt(readArchiveFile(file), opener, basename(file)), {
      manifest: (found) => void (manifest = found),
      entry: ({ name }) => {
        if (name !== ENV_ENTRY) throw new Enough();
        return Promise.resolve({
          write: (chunk) => void chunks.push(chunk),
          end: () => Promise.reject(new Enough()),
        });
      },
    });
  } catch (thrown) {
    if (!(thrown instanceof Enough)) throw thrown;
  }
  if (manifest === null || chunks.length === 0) throw damaged(`it does not begin with ${ENV_ENTRY}`);
  return { manifest, env: Buffer.concat(chunks).toString("utf8") };
}

/**
 * Unpacks an archive into a new directory that only root may enter, with its manifest and the files in `more`. All of it is compared with
 * its list on the way, and the directory gets its name when all is in it and on the disk. Whoever calls this has read it with
 * requireUnchanged, which gave `leastBytes`.
 */
export async function unpackArchive(
  file: string,
  opener: Opener,
  directory: string,
  {
    space,
    leastBytes,
    more = [],
    staysBegun = false,
  }: {
    readonly space: (path: string) => Promise<{ readonly freeBytes: number }>;
    readonly leastBytes: number;
    readonly more?: readonly { readonly name: string; readonly text: string }[];
    /** True: after a failure, an empty partialOf(directory) stays, and says that a restore was begun. */
    readonly staysBegun?: boolean;
  },
): Promise<ReadArchive> {
  await requireNewDirectory(directory);
  const { size } = await stat(file);
  const requireSpace = async (bytes: number, why: string): Promise<void> => {
    const { freeBytes } = await space(dirname(directory));
    if (freeBytes >= bytes + SPACE_MORE_BYTES) return;
    throw new OperatorError({
      exit: "preflight",
      what: `The disk of ${directory} has ${decimalBytes(freeBytes)} free, and ${decimalBytes(bytes + SPACE_MORE_BYTES)} are needed.`,
      why,
      remedy: "Free some space there, or give another directory.",
    });
  };
  const least = Math.max(size, leastBytes);
  await requireSpace(least, `Unpacked, the backup has at least ${decimalBytes(least)}.`);
  const hidden = partialOf(directory);
  const empty = (): void => {
    for (const name of existsSync(hidden) ? readdirSync(hidden) : [])
      rmSync(join(hidden, name), { recursive: true, force: true });
  };
  // A run that is stopped by a signal leaves no secret. Of a restore, the directory stays: it says that it was cut off.
  const clear = staysBegun ? empty : () => rmSync(hidden, { recursive: true, force: true });
  try {
    const there = await lstat(hidden).catch(() => null);
    // As the mark of a restore it stays, also on the way.
    if (staysBegun && there?.isDirectory() === true) {
      empty();
      await chmod(hidden, 0o700);
    } else {
      await rm(hidden, { recursive: true, force: true });
      await mkdir(hidden, { mode: 0o700 });
    }
    process.once("exit", clear);
    const unpacking = new Unpacking(hidden);
    let read: ReadArchive;
    try {
      read = await readArchive(decrypt(readArchiveFile(file), opener, basename(file)), {
        manifest: () => {},
        entry: async (head) => {
          // How much there is to unpack stands at its end: so the disk is looked at before each part, too.
          await requireSpace(head.bytes, `${head.name} did not fit any more. What was unpacked was removed.`);
          return await unpacking.open(head);
        },
      });
      await unpacking.add({ name: FIRST_ENTRY, text: JSON.stringify(read.manifest) });
      for (const one of more) await unpacking.add(one);
      await unpacking.finish();
    } finally {
      await unpacking.close();
    }
    await rename(hidden, directory);
    await sync(dirname(directory));
    return read;
  } catch (thrown) {
    if (staysBegun) empty();
    else await rm(hidden, { recursive: true, force: true });
    throw fileError("write", directory, thrown);
  } finally {
    process.off("exit", clear);
  }
}

/**
 * Throws (`usage`, `foreign`, `preflight`) if nothing can be unpacked into a new directory of this name: before an archive is read, which
 * can take long. An empty directory may be there.
 */
export async function requireNewDirectory(directory: string): Promise<void> {
  const parent = dirname(directory);
  const [own, above] = await Promise.all([look(directory, lstat), look(parent, stat)]);
  if (above?.isDirectory() !== true)
    throw refuse(
      above === null ? `There is no directory ${parent}.` : `${parent} is not a directory.`,
      above === null ? `Make it (mkdir -p ${parent}), or give another one.` : "Give a directory elsewhere.",
    );
  if (own !== null && !own.isDirectory())
    throw refuse(
      `${directory} is ${own.isSymbolicLink() ? "a symbolic link" : "not a directory"}.`,
      "Give a directory that does not exist yet.",
    );
  // What is unpacked gets its name at the end, and nothing gets the name of a mounted disk.
  if (own !== null && own.dev !== above.dev)
    throw refuse(`A disk is mounted at ${directory}.`, `Give a new directory on it: ${directory}/backup`);
  const names = own === null ? [] : await readdir(directory);
  if (names.length > 0)
    throw new OperatorError({
      exit: "foreign",
      what: `${directory} is not empty.`,
      remedy: "Give a directory that does not exist yet.",
    });
  await access(parent, constants.W_OK).catch((thrown: unknown) => {
    const { what, why = "" } = fileError("write", parent, thrown);
    const remedy = "Give a directory on another disk, or make this one writable.";
    throw new OperatorError({ exit: "preflight", what, why, remedy, cause: thrown });
  });
}

async function look(path: string, ask: typeof lstat): Promise<Stats | null> {
  try {
    return await ask(path);
  } catch (thrown) {
    if (isAbsence(thrown)) return null;
    throw fileError("read", path, thrown);
  }
}

function refuse(what: string, remedy: string): OperatorError {
  return new OperatorError({ exit: "usage", what, remedy });
}

class Unpacking {
  readonly #root: string;
  readonly #directories: EntryHead[] = [];
  #dump: FileHandle | null = null;
  #open: FileHandle | null = null;

  constructor(root: string) {
    this.#root = root;
  }

  async open(head: EntryHead): Promise<EntrySink | null> {
    const path = join(this.#root, head.name);
    if (head.kind === "directory") {
      await this.#parents(path);
      this.#directories.push(head);
      return null;
    }
    if (head.name.startsWith(`${PLACES.database}/`)) {
      this.#dump ??= await open(join(this.#root, DUMP_FILE), "wx", 0o600);
      return { write: writeTo(this.#dump), end: () => Promise.resolve() };
    }
    await this.#parents(dirname(path));
    const file = await open(path, "wx", 0o600);
    this.#open = file;
    return {
      write: writeTo(file),
      end: async () => {
        await file.chown(head.uid, head.gid);
        await file.chmod(head.mode);
        await file.sync();
        await this.#closeFile();
      },
    };
  }

  /** A file of ours beside what is in the archive. */
  async add({ name, text }: { readonly name: string; readonly text: string }): Promise<void> {
    const file = await open(join(this.#root, name), "wx", 0o600);
    this.#open = file;
    await file.writeFile(text);
    await file.sync();
    await this.#closeFile();
  }

  /** Of directories, the mode comes last: one that may not be written to could not be filled. */
  async finish(): Promise<void> {
    await this.#dump?.sync();
    await this.close();
    for (const { name, mode, uid, gid } of this.#directories.toReversed()) {
      const path = join(this.#root, name);
      await chown(path, uid, gid);
      await chmod(path, mode);
      await sync(path);
    }
    await sync(this.#root);
  }

  /** Also after a failure: what is open keeps its disk in use. */
  async close(): Promise<void> {
    await this.#closeFile();
    const dump = this.#dump;
    this.#dump = null;
    await dump?.close();
  }

  async #closeFile(): Promise<void> {
    const file = this.#open;
    this.#open = null;
    await file?.close();
  }

  async #parents(path: string): Promise<void> {
    await mkdir(path, { recursive: true, mode: 0o700 });
  }
}

function writeTo(file: FileHandle): (chunk: Buffer) => Promise<void> {
  return (chunk) => writeAll(file, chunk);
}
