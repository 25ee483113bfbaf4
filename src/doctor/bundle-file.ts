import { randomBytes } from "node:crypto";
import { link, lstat, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { pack } from "tar-stream";
import { messageOf, OperatorError } from "../errors.ts";
import { codeOf, isAbsence } from "../machine/file-errors.ts";
import { removeLeftovers, sync, TEMPORARY_MARK } from "../machine/file-writer.ts";

/** One file of the archive. */
export interface BundleEntry {
  readonly name: string;
  readonly text: string;
}

const MODE = 0o600;

/** Throws (`usage`) if something has this name already: an archive never replaces anything. */
export async function refuseExisting(path: string): Promise<void> {
  try {
    await lstat(path);
  } catch (thrown) {
    if (isAbsence(thrown)) return;
    throw failure(path, thrown);
  }
  throw exists(path);
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
  try {
    // What a killed run left.
    await removeLeftovers(target);
    const archive = pack();
    const file = await open(temporary, "wx", MODE);
    const written = pipeline(archive, createGzip(), file.createWriteStream({ flush: true }));
    // Its error is thrown below, where it is awaited.
    written.catch(() => {});
    await Promise.race([fill(archive, entries, now), written]);
    await written;
    const { size } = await lstat(temporary);
    await giveName(temporary, target);
    await sync(dirname(target));
    return size;
  } catch (thrown) {
    await rm(temporary, { force: true });
    if (thrown instanceof OperatorError) throw thrown;
    throw codeOf(thrown) === "EEXIST" ? exists(path) : failure(path, thrown);
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
  return new OperatorError({
    exit: "unavailable",
    what: `${path} can't be written: ${messageOf(cause)}.`,
    remedy: "Give a file in a directory that exists and has space.",
    cause,
  });
}
