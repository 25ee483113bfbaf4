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
      /** Where it was made, and whether that was on a file system of the master itself. The first version with backups did not write these. */
      directory: z.string().optional(),
      is_own_disk: z.boolean().optional(),
      /** False: no snapshot of the pinset is in it, so it brings no pin back. */
      has_pins: z.boolean().optional(),
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

/** True if a directory, which need not exist yet, is on the file system of the machine's root, or of the base directory. */
export async function isOnOwnDisk(directory: string, baseDir: string): Promise<boolean> {
  const [device, ...own] = await Promise.all([directory, "/", baseDir].map(deviceOf));
  return own.includes(device ?? -1);
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
 * Throws (`preflight`) if the newest backup in this directory was made on a file system of its own, and the next one would be made on that
 * of the master: a disk that is not mounted leaves an empty directory.
 */
export async function requireMounted(
  record: readonly RecordedBackup[],
  isOwnDisk: boolean,
  { directory, recordPath }: { readonly directory: string; readonly recordPath: string },
): Promise<void> {
  if (!isOwnDisk) return;
  const here = record.filter((one) => (one.directory ?? directory) === directory);
  const newest = here.toSorted((a, b) => Date.parse(a.at) - Date.parse(b.at)).at(-1);
  if (newest === undefined || newest.is_own_disk === true) return;
  if (newest.is_own_disk === undefined) {
    const there = await Promise.all(here.map(({ name }) => stat(join(directory, name)).catch(() => null)));
    if (there.some((one) => one !== null)) return;
  }
  throw new OperatorError({
    exit: "preflight",
    what: `${directory} is on a file system of this master, and ${newest.is_own_disk === false ? `${newest.name} in it was not` : "no backup that is on record is in it"}.`,
    why: "Its own disk is probably not mounted. A backup here would be lost with the master.",
    remedy: `Mount it, then run again. Or give another directory in BACKUP_DIR. Or, if backups are to be here from now on: rm ${recordPath} (older ones then stay until you remove them).`,
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
 * made. Whatever is not in the record stays. `newest` has just been made, and stays in any case; so does the newest one that has pins.
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
  const withPins = sorted.findLast((one) => one.has_pins !== false);
  const old = sorted
    .slice(0, Math.max(0, sorted.length - Math.max(1, keep)))
    .filter((one) => one !== newest && one !== withPins);
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

/** Null if there is no such file any more. One that can't be read is not what was written: the others still get older. */
async function hashOf(path: string): Promise<string | null> {
  try {
    return await hashArchiveFile(path);
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    return isAbsence(thrown.cause) ? null : "unreadable";
  }
}
