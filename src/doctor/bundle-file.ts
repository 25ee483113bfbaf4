import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { access, constants, link, lstat, open, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { pack } from "tar-stream";
import { messageOf, OperatorError } from "../errors.ts";
import { codeOf, fileError, isAbsence, resolvable } from "../machine/file-errors.ts";
import { removeLeftovers, sync, TEMPORARY_MARK } from "../machine/file-writer.ts";

/** One file of the archive. */
export interface BundleEntry {
  readonly name: string;
  readonly text: string;
}

const MODE = 0o600;

/**
 * Throws (`usage`, `unavailable`) if no archive can be written there: for a place that is wrong, before anything is looked at. An
 * archive never replaces anything.
 */
export async function requirePlace(path: string): Promise<void> {
  if (path.trim() === "")
    throw new OperatorError({
      exit: "usage",
      what: "--bundle has no file name.",
      remedy: "Name the new file, such as --bundle support.tar.gz.",
    });
  const target = resolve(resolvable(path));
  const directory = dirname(target);
  const [there, above] = await Promise.all([orNull(lstat(target), path), orNull(stat(directory), path)]);
  if (there !== null) throw exists(path);
  if (above?.isDirectory() !== true)
    throw new OperatorError({
      exit: "usage",
      what: `${directory} ${above === null ? "does not exist" : "is not a directory"}, so ${path} can't be written.`,
      remedy: REMEDY,
    });
  await access(directory, constants.W_OK).catch((thrown: unknown) => {
    throw failure(path, thrown);
  });
}

const REMEDY = "Give a file in a directory that exists and has space.";

async function orNull<Found>(asking: Promise<Found>, path: string): Promise<Found | null> {
  try {
    return await asking;
  } catch (thrown) {
    if (isAbsence(thrown)) return null;
    throw failure(path, thrown);
  }
}

/**
 * Writes a tar.gz that only root can read, and returns its size in bytes. It gets its name only when it is complete and on the
 * disk. Throws an OperatorError if the name is taken, or if it can't be written: then nothing is left.
 */
export async function writeBundle(
  path: string,
  entries: AsyncIterable<BundleEntry>,
  now: Date,
): Promise<number> {
  const target = resolve(path);
  const temporary = join(
    dirname(target),
    `.${basename(target)}${TEMPORARY_MARK}${process.pid}.${randomBytes(6).toString("hex")}`,
  );
  // A signal ends the process in the middle.
  const remove = (): void => rmSync(temporary, { force: true });
  process.once("exit", remove);
  try {
    // What a killed run left.
    await removeLeftovers(target);
    const archive = pack();
    const file = await open(temporary, "wx", MODE);
    const written = pipeline(archive, createGzip(), file.createWriteStream({ flush: true }));
    // Its error is thrown below, where it is awaited.
    written.catch(() => {});
    await Promise.race([fill(archive, entries, now), written]).catch(async (thrown: unknown) => {
      // This closes the file.
      archive.destroy();
      await written.catch(() => {});
      throw thrown;
    });
    await written;
    const { size } = await lstat(temporary);
    await giveName(temporary, target);
    await sync(dirname(target));
    return size;
  } catch (thrown) {
    // Where its directory is gone, too, there is nothing to remove.
    await rm(temporary, { force: true }).catch(() => {});
    if (thrown instanceof OperatorError) throw thrown;
    throw codeOf(thrown) === "EEXIST" ? exists(path) : failure(path, thrown);
  } finally {
    process.off("exit", remove);
  }
}

/** Gives a file its name, which nothing else may have. The file system of a USB stick has no links. */
async function giveName(temporary: string, target: string): Promise<void> {
  try {
    await link(temporary, target);
    await rm(temporary);
  } catch (thrown) {
    if (!["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"].includes(codeOf(thrown) ?? "")) throw thrown;
    const found = await lstat(target).catch(() => null);
    if (found !== null) throw exists(target);
    await rename(temporary, target);
  }
}

async function fill(
  archive: ReturnType<typeof pack>,
  entries: AsyncIterable<BundleEntry>,
  mtime: Date,
): Promise<void> {
  for await (const { name, text } of entries)
    await new Promise<void>((done, failed) => {
      archive.entry({ name: `fula-node-doctor/${name}`, mode: MODE, mtime }, text, (error) =>
        error === undefined || error === null ? done() : failed(error),
      );
    });
  archive.finalize();
}

function exists(path: string): OperatorError {
  return new OperatorError({
    exit: "usage",
    what: `${path} exists already.`,
    remedy: "Give another name, or move that file away.",
  });
}

function failure(path: string, cause: unknown): OperatorError {
  const { what, why = messageOf(cause) } = fileError("write", path, cause);
  return new OperatorError({ exit: "unavailable", what, why, remedy: REMEDY, cause });
}
