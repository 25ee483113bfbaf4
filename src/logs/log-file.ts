import { watch } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { fileError, isAbsence } from "../machine/file-errors.ts";
import { LineSplitter } from "../machine/line-scanner.ts";

/** Which lines of a log file. */
export interface LogFileOptions {
  /** Only the last lines; left out: all. */
  readonly tail?: number;
  /** How many rotated files (`.1`, `.2`, ...) before it count, too. */
  readonly rotated: number;
}

/** A log file that was read to its end, to go on from there. */
export interface OpenLogFile {
  /** False if there is neither it nor a rotated one yet. */
  readonly isThere: boolean;
  /** The lines up to the size that it had when it was opened, in order. */
  lines(): AsyncIterable<string>;
  /** The lines that are appended from then on, also after a rotation. Ends with the signal. */
  follow(signal: AbortSignal): AsyncIterable<string>;
  close(): Promise<void>;
}

const CHUNK_BYTES = 64 * 1024;
const NEWLINE = 0x0a;

/**
 * Opens a log file in constant memory; null if it is not there, and neither is its directory. Throws an OperatorError if it can't
 * be read.
 */
export async function openLogFile(path: string, options: LogFileOptions): Promise<OpenLogFile | null> {
  try {
    return await openAll(path, options);
  } catch (thrown) {
    throw fileError("read", path, thrown);
  }
}

interface Part {
  readonly handle: FileHandle;
  readonly from: number;
  readonly to: number;
}

async function openAll(path: string, { tail, rotated }: LogFileOptions): Promise<OpenLogFile | null> {
  const newest = await openIfThere(path);
  const parts: Part[] = [];
  let missing = tail ?? Infinity;
  for (let age = 0; age <= rotated && missing > 0; age += 1) {
    const handle = age === 0 ? newest : await openIfThere(`${path}.${age}`);
    if (handle === null) continue;
    const { size } = await handle.stat();
    const { from, lines } =
      missing === Infinity ? { from: 0, lines: 0 } : await findTail(handle, size, missing);
    missing -= lines;
    parts.unshift({ handle, from, to: size });
  }
  if (parts.length === 0 && !(await isDirectory(dirname(path)))) return null;
  const end = newest === null ? 0 : ((await newest.stat()).size ?? 0);
  const last = parts.at(-1);
  const followFrom = last !== undefined && last.handle === newest ? last.to : end;
  return {
    isThere: parts.length > 0,
    async *lines() {
      for (const { handle, from, to } of parts) yield* readLines(handle, from, to);
    },
    follow: (signal) => followLines(path, newest, followFrom, signal),
    close: async () => {
      const handles = new Set([...parts.map(({ handle }) => handle), ...(newest === null ? [] : [newest])]);
      await Promise.all([...handles].map((handle) => handle.close()));
    },
  };
}

async function openIfThere(path: string): Promise<FileHandle | null> {
  try {
    return await open(path, "r");
  } catch (thrown) {
    if (isAbsence(thrown)) return null;
    throw thrown;
  }
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (thrown) {
    if (isAbsence(thrown)) return false;
    throw thrown;
  }
}

/** Where the last lines begin, found from the end. */
async function findTail(
  handle: FileHandle,
  size: number,
  wanted: number,
): Promise<{ readonly from: number; readonly lines: number }> {
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  let lines = 0;
  let end = size;
  while (end > 0) {
    const start = Math.max(0, end - CHUNK_BYTES);
    const { bytesRead } = await handle.read(buffer, 0, end - start, start);
    for (let at = bytesRead - 1; at >= 0; at -= 1) {
      // The newline at the very end ends a line, and begins none.
      if (buffer[at] !== NEWLINE || start + at === size - 1) continue;
      lines += 1;
      if (lines === wanted) return { from: start + at + 1, lines };
    }
    end = start;
  }
  return { from: 0, lines: size === 0 ? 0 : lines + 1 };
}

/** The lines between two offsets. The last one may have no newline. */
async function* readLines(handle: FileHandle, from: number, to: number): AsyncGenerator<string> {
  const splitter = new LineSplitter();
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  for (let at = from; at < to;) {
    const { bytesRead } = await handle.read(buffer, 0, Math.min(CHUNK_BYTES, to - at), at);
    if (bytesRead === 0) break;
    at += bytesRead;
    yield* splitter.add(buffer.subarray(0, bytesRead));
  }
  yield* splitter.rest();
}

/** Reads on whenever something happens in the directory: the file grew, was rotated, or was created. */
async function* followLines(
  path: string,
  first: FileHandle | null,
  from: number,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const changes = watchName(path, signal);
  let handle = first;
  let at = from;
  let splitter = new LineSplitter();
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  try {
    do {
      if (handle !== null && (await handle.stat()).size < at) at = 0;
      for (;;) {
        if (handle === null) break;
        const { bytesRead } = await handle.read(buffer, 0, CHUNK_BYTES, at);
        if (bytesRead === 0) break;
        at += bytesRead;
        yield* splitter.add(buffer.subarray(0, bytesRead));
      }
      const now = await openIfThere(path);
      const isOther = now !== null && (handle === null || !(await isSame(handle, now)));
      if (isOther) {
        yield* splitter.rest();
        splitter = new LineSplitter();
        if (handle !== first) await handle?.close();
        handle = now;
        at = 0;
        continue;
      }
      await now?.close();
      if (!(await changes.next())) break;
    } while (!signal.aborted);
  } finally {
    changes.close();
    if (handle !== first) await handle?.close();
  }
}

async function isSame(one: FileHandle, other: FileHandle): Promise<boolean> {
  const [a, b] = await Promise.all([one.stat(), other.stat()]);
  return a.ino === b.ino && a.dev === b.dev;
}

/** `next` waits for a change of the file with this name. It is false once the signal has come. */
function watchName(
  path: string,
  signal: AbortSignal,
): { readonly next: () => Promise<boolean>; readonly close: () => void } {
  let changed = false;
  let wake = (): void => {};
  const name = basename(path);
  const watcher = watch(dirname(path), (_event, file) => {
    if (file !== null && file !== name) return;
    changed = true;
    wake();
  });
  const stop = (): void => wake();
  signal.addEventListener("abort", stop);
  return {
    next: async () => {
      if (!changed && !signal.aborted)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      changed = false;
      return !signal.aborted;
    },
    close: () => {
      watcher.close();
      signal.removeEventListener("abort", stop);
    },
  };
}
