import { rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as z from "zod";
import { OperatorError } from "../errors.ts";
import { fileError, isAbsence } from "../machine/file-errors.ts";
import { sync } from "../machine/file-writer.ts";
import { hashArchiveFile } from "./archive-file.ts";

const recordSchema = z.object({
  version: z.literal(1),
  backups: z.array(
    z.object({
      name: z.string().regex(/^backup-[A-Za-z0-9._-]+\.age$/),
      bytes: z.number().int().nonnegative(),
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
      at: z.iso.datetime(),
      /** True if it was made on the disk of the master itself. Version 0.5.0 did not write it. */
      is_own_disk: z.boolean().optional(),
    }),
  ),
});

/** A backup that was read back whole when it was made. With a recipient's key alone, nobody can tell that later. */
export type RecordedBackup = z.infer<typeof recordSchema>["backups"][number];

/** Reads the record. What can't be read counts as none: then nothing is removed that nobody vouches for. */
export function parseBackupRecord(text: string | null): readonly RecordedBackup[] {
  try {
    return recordSchema.parse(JSON.parse(text ?? "")).backups;
  } catch {
    return [];
  }
}

/** True if a directory, which need not exist yet, is on the same file system as another one. */
export async function sharesDisk(directory: string, other: string): Promise<boolean> {
  const [one, two] = await Promise.all([deviceOf(directory), deviceOf(other)]);
  return one === two;
}

async function deviceOf(path: string): Promise<number> {
  try {
    return (await stat(path)).dev;
  } catch (thrown) {
    const parent = dirname(path);
    if (!isAbsence(thrown) || parent === path) throw fileError("read", path, thrown);
    return deviceOf(parent);
  }
}

/**
 * Throws (`preflight`) if the newest backup was made on another disk than that of the master, and the next one would be made on that of
 * the master: a disk that is not mounted leaves an empty directory.
 */
export function requireMounted(
  record: readonly RecordedBackup[],
  isOwnDisk: boolean,
  { directory, recordPath }: { readonly directory: string; readonly recordPath: string },
): void {
  const newest = record.toSorted((a, b) => Date.parse(a.at) - Date.parse(b.at)).at(-1);
  if (newest?.is_own_disk !== false || !isOwnDisk) return;
  throw new OperatorError({
    exit: "preflight",
    what: `${directory} is on the disk of this master, and the backups before were not.`,
    why: "Its own disk is not mounted. A backup on this one would be lost with the master.",
    remedy: `Mount it, then run again. Or, if backups are to be here from now on, and those before are of no more use: rm ${recordPath}`,
  });
}

/** The text of the record, the oldest backup first. */
export function renderBackupRecord(backups: readonly RecordedBackup[]): string {
  return `${JSON.stringify({ version: 1, backups })}\n`;
}

/** What retention did. */
interface Kept {
  /** The record after it. */
  readonly backups: readonly RecordedBackup[];
  readonly removed: readonly string[];
  /** Backups that are not what was written. They stay, and do not count. */
  readonly damaged: readonly string[];
}

/**
 * Keeps the newest good backups of a record, and removes older good ones. Good: its bytes are those that were verified when it was
 * made. Whatever is not in the record stays. `newest` has just been made, and stays in any case.
 */
export async function keepGood(
  directory: string,
  record: readonly RecordedBackup[],
  newest: RecordedBackup,
  keep: number,
): Promise<Kept> {
  const others = record.filter(({ name }) => name !== newest.name);
  const good: RecordedBackup[] = [];
  const damaged: RecordedBackup[] = [];
  for (const one of others) {
    const sha256 = await hashOf(join(directory, one.name));
    if (sha256 === one.sha256) good.push(one);
    else if (sha256 !== null) damaged.push(one);
  }
  const sorted = [...good, newest].toSorted((a, b) => Date.parse(a.at) - Date.parse(b.at));
  const old = sorted.slice(0, Math.max(0, sorted.length - Math.max(1, keep))).filter((one) => one !== newest);
  for (const { name } of old) {
    const path = join(directory, name);
    await rm(path, { force: true }).catch((thrown: unknown) => {
      throw fileError("remove", path, thrown);
    });
  }
  if (old.length > 0) await sync(directory);
  const gone = new Set(old);
  return {
    backups: [...damaged, ...sorted.filter((one) => !gone.has(one))],
    removed: old.map(({ name }) => name),
    damaged: damaged.map(({ name }) => name),
  };
}

/** Null if there is no such file any more. */
async function hashOf(path: string): Promise<string | null> {
  try {
    return await hashArchiveFile(path);
  } catch (thrown) {
    const cause = thrown instanceof OperatorError ? thrown.cause : thrown;
    if (isAbsence(cause)) return null;
    throw thrown;
  }
}
