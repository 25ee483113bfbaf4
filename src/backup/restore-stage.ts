import { chmod, chown, copyFile, constants, lstat, mkdir, readdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { OperatorError } from "../errors.ts";
import { codeOf, fileError } from "../machine/file-errors.ts";
import { type Files, makeDirectories, replacing, sync } from "../machine/file-writer.ts";
import type { FileReader } from "../machine/file-reader.ts";
import { type BackupManifest, FIRST_ENTRY, parseBackupManifest } from "./backup-manifest.ts";
import type { Opener } from "./encryption.ts";
import { PLACES } from "./node-files.ts";
import { parseManifest, snapshotFiles } from "../pinset/snapshot/manifest.ts";
import { joinNumbers, parseMemory, serialiseMemory } from "../pinset/snapshot/memory.ts";
import {
  DUMP_FILE,
  DUMP_IS_RESTORED as DATABASE,
  masterLayout,
  type MasterLayout,
} from "../settings/layout.ts";
import { partialOf, unpackArchive } from "./unpack.ts";

/** A backup that is unpacked on the machine that becomes its master, until the master has all of it. It is there only meanwhile. */
export interface Stage {
  readonly directory: string;
  readonly manifest: BackupManifest;
  /** The name of the archive. */
  readonly archive: string;
  /** True once its files are where they belong: then they belong to the master, and are not placed again. */
  readonly isPlaced: boolean;
  /** True once the cluster has all pins of its newest snapshot, or if it has no snapshot. */
  readonly hasPins: boolean;
}

const ARCHIVE = "archive.txt";
const PLACED = "placed.txt";
const PINS = "pins.txt";

/** Where a restore into this base directory keeps what it has unpacked. */
export function stageOf(baseDir: string): string {
  return masterLayout(baseDir).fromBackupDir;
}

/** True if a run was ended while it unpacked a backup for this base directory: nothing is in place yet. */
export async function isUnpacking(files: FileReader, baseDir: string): Promise<boolean> {
  return (await files.stat(partialOf(stageOf(baseDir)))) !== null;
}

/** The database in a stage, as pg_restore reads it. */
export function dumpOf({ directory }: Pick<Stage, "directory">): string {
  return `${directory}/${DUMP_FILE}`;
}

/** The restore that goes on in this base directory; null if none does. */
export async function readStage(files: FileReader, baseDir: string): Promise<Stage | null> {
  const directory = stageOf(baseDir);
  const text = await files.readText(`${directory}/${FIRST_ENTRY}`);
  if (text === null) return null;
  const [archive, placed, pins] = await Promise.all([
    files.readText(`${directory}/${ARCHIVE}`),
    files.stat(`${directory}/${PLACED}`),
    files.stat(`${directory}/${PINS}`),
  ]);
  const manifest = parseBackupManifest(text);
  return {
    directory,
    manifest,
    archive: archive?.trim() ?? "",
    isPlaced: placed !== null,
    hasPins: pins !== null || manifest.snapshots.length === 0,
  };
}

/** True once the database of a stage is known to be restored. */
export async function hasDatabase({ directory }: Stage, files: FileReader): Promise<boolean> {
  return (await files.stat(`${directory}/${DATABASE}`)) !== null;
}

/** Marks a stage: its database is restored. */
export async function markDatabase({ directory }: Stage, files: Pick<Files, "writeAtomic">): Promise<void> {
  await files.writeAtomic(`${directory}/${DATABASE}`, "", { mode: 0o600 });
}

/** Marks a stage: the cluster has its pins. */
export async function markPins({ directory }: Stage, files: Pick<Files, "writeAtomic">): Promise<void> {
  await files.writeAtomic(`${directory}/${PINS}`, "", { mode: 0o600 });
}

/**
 * What of a stage is not needed any more once a join has come to its end, in the order in which it must be removed: a stage that is
 * removed in part is still known as one. Until the cluster has the pins, the snapshots stay, and what says which backup it is.
 */
export async function unneededOf(files: FileReader, layout: MasterLayout): Promise<readonly string[]> {
  const directory = layout.fromBackupDir;
  const names = await files.list(directory);
  if (names === null) return [];
  const paths = (from: string, all: readonly string[], kept: readonly string[]): readonly string[] =>
    all.filter((name) => !kept.includes(name)).map((name) => `${from}/${name}`);
  const stage = await readStage(files, layout.baseDir);
  if (stage === null || stage.hasPins) {
    const marks = [PLACED, FIRST_ENTRY, ARCHIVE, PINS, DATABASE].filter((name) => names.includes(name));
    return [...paths(directory, names, marks), ...marks.map((name) => `${directory}/${name}`), directory];
  }
  const base = `${directory}/${PLACES.base}`;
  return [
    ...paths(directory, names, [FIRST_ENTRY, ARCHIVE, PLACED, DATABASE, PLACES.base]),
    ...paths(base, (await files.list(base)) ?? [], [basename(layout.snapshotsDir)]),
  ];
}

/** Unpacks an archive for the master of this base directory. The stage is whole, or it is not there, and only isUnpacking is true. */
export async function unpackStage(
  file: string,
  opener: Opener,
  baseDir: string,
  { files }: { readonly files: Files },
  leastBytes: number,
): Promise<void> {
  await makeDirectories(baseDir, 0o755);
  // From here on, a join without the flag would make a new master where the old one is wanted.
  await files.makeDirectory(partialOf(stageOf(baseDir)), { mode: 0o700 });
  try {
    await unpackArchive(file, opener, stageOf(baseDir), {
      space: (path) => files.space(path),
      leastBytes,
      more: [{ name: ARCHIVE, text: `${basename(file)}\n` }],
      staysBegun: true,
    });
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    const { exit, what, why, problems, remedy } = thrown;
    throw new OperatorError({
      exit,
      what,
      problems,
      cause: thrown,
      ...(why === undefined ? {} : { why }),
      remedy: `${remedy ?? ""} Run again with --from-backup ${file}`.trimStart(),
    });
  }
}

/** Puts the files of a stage where they belong, with their owners and modes, and marks the stage. Safe to repeat. */
export async function placeStage(
  stage: Stage,
  baseDir: string,
  { files }: { readonly files: Files },
): Promise<void> {
  const { directory, manifest } = stage;
  for (const [place, target] of [
    [PLACES.base, baseDir],
    // Null: the archive has nothing of a writer.
    [PLACES.writer, manifest.master.writer_dir],
  ] as const) {
    const from = join(directory, place);
    if (target === null || (await files.stat(from)) === null) continue;
    try {
      await makeDirectories(target, 0o755);
      await placeBelow(from, target);
    } catch (thrown) {
      throw fileError("write", target, thrown);
    }
  }
  await knowEarlierSnapshots(stage, masterLayout(baseDir).snapshotMemory, files);
  await files.writeAtomic(`${directory}/${PLACED}`, "", { mode: 0o600 });
}

/** A backup has only the newest snapshots. That those before them are not here is no loss that anybody must look into. */
async function knowEarlierSnapshots(
  { directory, manifest: { snapshots } }: Stage,
  path: string,
  files: Files,
): Promise<void> {
  const memory = parseMemory(await files.readText(path));
  if (memory === null || memory === "damaged" || memory.removed === null) return;
  const sequences: number[] = [];
  for (const name of snapshots) {
    const manifest = `${directory}/${PLACES.base}/snapshots/${snapshotFiles(name).manifest}`;
    const text = await files.readText(manifest);
    if (text !== null) sequences.push(parseManifest(text, manifest).sequence);
  }
  const first = Math.min(...sequences);
  if (!Number.isFinite(first) || first <= 1) return;
  const removed = joinNumbers([...memory.removed, [1, first - 1]]);
  await files.writeAtomic(path, serialiseMemory({ ...memory, removed }), { mode: 0o600 });
}

async function placeBelow(from: string, to: string): Promise<void> {
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    const { mode, uid, gid } = await lstat(source);
    if (!entry.isDirectory()) {
      await replacing(target, async (temporary) => {
        await copyFile(source, temporary, constants.COPYFILE_EXCL);
        await chown(temporary, uid, gid);
        await chmod(temporary, mode & 0o7777);
        await sync(temporary);
      });
      continue;
    }
    await mkdir(target, { mode: 0o700 }).catch((thrown: unknown) => {
      if (codeOf(thrown) !== "EEXIST") throw thrown;
    });
    await placeBelow(source, target);
    // A directory that only leads to files has no owner and mode of its own in the archive.
    await chown(target, uid, gid);
    await chmod(target, mode & 0o7777);
    await sync(target);
    await sync(dirname(target));
  }
}
