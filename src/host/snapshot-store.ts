import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { OperatorError, messageOf } from "../errors.ts";
import { snapshotFiles } from "../model/snapshot-files.ts";
import { BodyWriter } from "./snapshot-body.ts";
import { listSnapshotFiles } from "./snapshot-file.ts";
import type { SnapshotFile } from "./snapshot-file.ts";
import type { BodyFacts } from "./snapshot-body.ts";

export type { BodyFacts } from "./snapshot-body.ts";

/** A snapshot that is being written; nothing of it can be seen under its name until commit. */
export interface SnapshotDraft {
  /** Takes whole lines of pins. A promise means: wait. */
  write(lines: Buffer): void | Promise<void>;
  finish(): Promise<BodyFacts>;
  /** Puts all three files in place: the body, then the manifest, the signature last. */
  commit(manifest: Uint8Array, signature: Uint8Array): Promise<void>;
  /** Removes what was written; safe after a failure of anything above. */
  discard(): Promise<void>;
}

/** The directory of a box's snapshots. Its failures are OperatorErrors (unavailable). */
export interface SnapshotStore {
  readonly directory: string;
  /** Every snapshot of our own layout, by name. An absent directory is an empty one. */
  list(): Promise<readonly SnapshotFile[]>;
  /** The sha256 of bytes, as hex. */
  sha256(bytes: Uint8Array): string;
  /** The sha256 of a body's file, as hex, or null where it is not there. */
  hashBody(name: string): Promise<string | null>;
  /** Begins a snapshot; clears what an interrupted run left under temporary names. */
  begin(name: string): Promise<SnapshotDraft>;
  /** Removes the files of one snapshot, signature first. */
  remove(name: string): Promise<void>;
}

const PARTIAL = ".partial";

/** Opens a directory of snapshots; nothing is made until one is begun. */
export function openSnapshotStore(directory: string): SnapshotStore {
  return {
    directory,
    sha256: (bytes) => createHash("sha256").update(bytes).digest("hex"),
    list: async () => (await listSnapshotFiles(directory)).filter(({ layout }) => layout === "ours"),
    hashBody: (name) => guarded(directory, "read", () => hashFile(join(directory, snapshotFiles(name).body))),
    begin: (name) => guarded(directory, "write to", () => begin(directory, name)),
    remove: (name) =>
      guarded(directory, "tidy", async () => {
        const files = snapshotFiles(name);
        for (const file of [files.signature, files.manifest, files.body]) {
          await rm(join(directory, file), { force: true });
        }
        await syncDirectory(directory);
      }),
  };
}

async function begin(directory: string, name: string): Promise<SnapshotDraft> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  for (const file of await readdir(directory)) {
    if (file.startsWith(".pinset-") && file.endsWith(PARTIAL))
      await rm(join(directory, file), { force: true });
  }
  const files = snapshotFiles(name);
  const hidden = (file: string): string => join(directory, `.${file}${PARTIAL}`);
  const body = await BodyWriter.create(hidden(files.body));
  return {
    write: (lines) => {
      const pending = body.write(lines);
      return pending?.catch((cause: unknown) => {
        throw diskTrouble(directory, "write to", cause);
      });
    },
    finish: () => guarded(directory, "write to", () => body.finish()),
    commit: (manifest, signature) =>
      guarded(directory, "write to", async () => {
        await writeSynced(hidden(files.manifest), manifest);
        await writeSynced(hidden(files.signature), signature);
        for (const file of [files.body, files.manifest, files.signature]) {
          await rename(hidden(file), join(directory, file));
        }
        await syncDirectory(directory);
      }),
    discard: async () => {
      await body.abandon();
      for (const file of Object.values(files)) await rm(hidden(file), { force: true });
    },
  };
}

async function writeSynced(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, "wx", 0o600);
  try {
    await file.writeFile(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function hashFile(path: string): Promise<string | null> {
  const sha256 = createHash("sha256");
  try {
    await pipeline(createReadStream(path, { highWaterMark: 1024 * 1024 }), sha256);
  } catch (cause) {
    return orWhenAbsent(null)(cause);
  }
  return sha256.digest("hex");
}

function orWhenAbsent<T>(value: T): (cause: unknown) => T {
  return (cause) => {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return value;
    throw cause;
  };
}

async function guarded<T>(directory: string, verb: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw diskTrouble(directory, verb, cause);
  }
}

function diskTrouble(directory: string, verb: string, cause: unknown): OperatorError {
  if (cause instanceof OperatorError) return cause;
  const code = (cause as NodeJS.ErrnoException).code;
  const full = code === "ENOSPC" || code === "EDQUOT";
  return new OperatorError({
    exit: "unavailable",
    what: full
      ? `The disk that holds ${directory} is full.`
      : `It was not possible to ${verb} ${directory}: ${messageOf(cause)}.`,
    remedy: full
      ? "Make room there (lower KEEP, move old snapshots away), then run this again."
      : "Look at the directory and its file system, then run this again.",
    cause,
  });
}
