import type { Files } from "../machine/file-writer.ts";
import type { MasterLayout } from "../settings/layout.ts";
import { decimalBytes } from "../units.ts";
import type { MadeBackup } from "./create-backup.ts";
import {
  isOnOwnDisk,
  keepGood,
  parseBackupRecord,
  type RecordedBackup,
  renderBackupRecord,
  requireMounted,
} from "./keep-good.ts";

/** `isOwnDisk`: it is lost with this machine. `exit`: `pending` if something of it, or beside it, is not as it should be. */
export type PlacedBackup = MadeBackup & { readonly isOwnDisk: boolean; readonly exit: "ok" | "pending" };

/** A backup in BACKUP_DIR that is on record, and what its heartbeat says. */
interface RegularBackup {
  readonly exit: "ok" | "pending";
  readonly summary: string;
  readonly facts: Readonly<Record<string, unknown>>;
  readonly made: PlacedBackup;
}

/** What a backup in BACKUP_DIR works with. */
interface RegularDeps {
  readonly files: Pick<Files, "readText" | "writeAtomic">;
  readonly warn: (text: string) => void;
  /** Gets the path of the backup once it is made, before it is on record. */
  readonly onMade: (path: string) => void;
}

/** Makes a backup in BACKUP_DIR, and puts it on record; then removes the good ones that are older than the newest `keep`. */
export async function makeRegular(
  { files, warn, onMade }: RegularDeps,
  { baseDir, backupRecord }: Pick<MasterLayout, "baseDir" | "backupRecord">,
  {
    directory,
    keep,
    make,
  }: {
    readonly directory: string;
    readonly keep: number;
    /** Gets the size of the backup before this one, 0 if there is none. */
    readonly make: (lastBytes: number) => Promise<MadeBackup>;
  },
): Promise<RegularBackup> {
  const before = parseBackupRecord(await files.readText(backupRecord));
  const isOwnDisk = await isOnOwnDisk(directory, baseDir);
  await requireMounted(before, isOwnDisk, { directory, recordPath: backupRecord });
  const one = await make(before.at(-1)?.bytes ?? 0);
  const { name, bytes, sha256, path, manifest } = one;
  onMade(path);
  const newest = {
    name,
    bytes,
    sha256,
    at: manifest.created_at,
    directory,
    is_own_disk: isOwnDisk,
    has_pins: hasPins(one),
  };
  // Recorded before anything is removed: what is not in the record is never removed.
  const save = (backups: readonly RecordedBackup[]) =>
    files.writeAtomic(backupRecord, renderBackupRecord(backups), { mode: 0o600 });
  await save([...before.filter((other) => other.name !== name), newest]);
  const kept = await keepGood(directory, before, newest, keep);
  await save(kept.backups);
  for (const bad of kept.damaged) warn(`${bad} is not what was written. It stays, and does not count.`);
  const good = kept.backups.length - kept.damaged.length;
  const damaged = kept.damaged.length === 0 ? "" : `, ${kept.damaged.length} damaged`;
  const exit = kept.damaged.length === 0 && hasPins(one) ? ("ok" as const) : ("pending" as const);
  return {
    exit,
    summary: `${decimalBytes(bytes)}, ${good} good in ${directory}${damaged}${faultsOf(one, isOwnDisk)}`,
    facts: { by_hand: false },
    made: { ...one, isOwnDisk, exit },
  };
}

/** Without a snapshot of the pinset, nothing says what is pinned. */
export function hasPins({ manifest }: Pick<MadeBackup, "manifest">): boolean {
  return manifest.snapshots.length > 0;
}

/** What is said of a backup without the pinset, or of one that is lost with the machine: clauses that begin with a comma. */
export function faultsOf(made: Pick<MadeBackup, "manifest">, isOwnDisk: boolean): string {
  const lack = hasPins(made) ? "" : ", without a snapshot of the pinset";
  return `${lack}${isOwnDisk ? ", on this machine's own disk" : ""}`;
}
