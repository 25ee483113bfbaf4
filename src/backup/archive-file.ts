import { createHash } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import { type FileHandle, open, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { OperatorError } from "../errors.ts";
import { fileError } from "../machine/file-errors.ts";
import { makeDirectories, sync } from "../machine/file-writer.ts";

/** An archive that is being written. Its name is hidden until it is verified. */
interface ArchiveDraft {
  /** Writes all of a chunk. */
  write(chunk: Uint8Array): Promise<void>;
  /** Syncs it, reads it back, and compares. Throws (`integrity`) if the disk has something else than was written. */
  seal(): Promise<{ readonly bytes: number; readonly sha256: string }>;
  /** Gives it its name. Nothing with that name was there before. */
  publish(name: string): Promise<string>;
  /** Removes it, unless it has its name. */
  discard(): Promise<void>;
}

const READ_BYTES = 256 * 1024;

/**
 * Begins an archive in a directory. `owner`, the id of the master, is part of its hidden name: what a killed run of this master left
 * there is removed, and that of another one in the same directory stays.
 */
export async function beginArchive(directory: string, owner: string): Promise<ArchiveDraft> {
  const hidden = join(directory, `.backup-${owner.replaceAll(/[^A-Za-z0-9._-]/g, "-")}.partial`);
  const there = await stat(directory).catch(() => null);
  if (there !== null && !there.isDirectory())
    throw new OperatorError({
      exit: "preflight",
      what: `${directory} is not a directory.`,
      remedy: "Give a directory. The archive gets a name of its own in it.",
    });
  const file = await guarded("write", hidden, async () => {
    await makeDirectories(directory, 0o700);
    await rm(hidden, { force: true });
    return await open(hidden, "wx", 0o600);
  });
  const { dev, ino } = await file.stat();
  const sha256 = createHash("sha256");
  let isOpen = true;
  let bytes = 0;
  const close = async (): Promise<void> => {
    if (isOpen) await file.close();
    isOpen = false;
  };
  /** Asked while it is open: nobody else gets its number then. */
  const isOurs = async (): Promise<boolean> => {
    const now = await stat(hidden).catch(() => null);
    return isOpen && now?.dev === dev && now.ino === ino;
  };
  return {
    write: (chunk) =>
      guarded("write", hidden, async () => {
        await writeAll(file, chunk);
        sha256.update(chunk);
        bytes += chunk.length;
      }),
    seal: () =>
      guarded("write", hidden, async () => {
        await file.sync();
        const written = sha256.digest("hex");
        if ((await hashArchiveFile(hidden)) === written) return { bytes, sha256: written };
        throw new OperatorError({
          exit: "integrity",
          what: `The disk of ${directory} gave back something else than was written to it.`,
          remedy: "Check that disk, or back up to another one.",
        });
      }),
    publish: (name) =>
      guarded("rename", hidden, async () => {
        const path = join(directory, name);
        if (!(await isOurs()))
          throw new OperatorError({
            exit: "unavailable",
            what: `Another run has begun a backup of this master in ${directory}, perhaps on another machine.`,
            remedy: "Back up each machine to its own directory, then run again.",
          });
        await rename(hidden, path);
        await close();
        await sync(directory);
        return path;
      }),
    discard: async () => {
      const remove = await isOurs();
      await close();
      if (remove) await rm(hidden, { force: true });
    },
  };
}

/** Writes all of a chunk at the file's place. */
export async function writeAll(file: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let written = 0; written < chunk.length;)
    written += (await file.write(chunk, written, chunk.length - written)).bytesWritten;
}

/** The sha256 of a file, as hex. Throws (`unavailable`) if it can't be read; the cause is that of the system. */
export async function hashArchiveFile(path: string): Promise<string> {
  const sha256 = createHash("sha256");
  return guarded("read", path, async () => {
    for await (const chunk of createReadStream(path, { highWaterMark: READ_BYTES }))
      sha256.update(chunk as Buffer);
    return sha256.digest("hex");
  });
}

/** The bytes of an archive. Throws (`unavailable`) if they can't be read, (`usage`) if there is no such file. */
export async function* readArchiveFile(path: string): AsyncGenerator<Buffer, void, undefined> {
  // Opened so that a pipe in the place of the file does not block for ever.
  const file = await guarded("read", path, async () => {
    if (path === "")
      throw new OperatorError({
        exit: "usage",
        what: "The path of the backup is empty.",
        remedy: "Give the path of the file that fula-node backup create wrote.",
      });
    const found = await stat(path).catch(() => null);
    if (found === null || !found.isFile())
      throw new OperatorError({
        exit: "usage",
        what: found === null ? `There is no file ${path}.` : `${path} is not a regular file.`,
        remedy: "Check the path.",
      });
    return await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  });
  try {
    for (;;) {
      const { bytesRead, buffer } = await guarded("read", path, () =>
        file.read(Buffer.allocUnsafe(READ_BYTES), 0, READ_BYTES, null),
      );
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}

async function guarded<Result>(verb: string, path: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (thrown) {
    throw fileError(verb, path, thrown);
  }
}
