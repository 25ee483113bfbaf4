import { type Opener, requireIdentities } from "../../backup/encryption.ts";
import { OperatorError } from "../../errors.ts";
import { readAssignments } from "../assignments.ts";
import type { JoinDeps } from "../join-run.ts";

/** The key that a passphrase has in `--set-file`. */
export const PASSPHRASE_KEY = "BACKUP_PASSPHRASE";
/** The key that the file of age-keygen has in `--set-file`. */
export const IDENTITY_KEY = "BACKUP_IDENTITY";

type Deps = Pick<JoinDeps, "host" | "readStdin">;

/** What opens an archive. Throws (`usage`) without one, or with something else. */
export async function readOpener(setFile: readonly string[], deps: Deps): Promise<Opener> {
  const given = await readBackupKeys(setFile, [PASSPHRASE_KEY, IDENTITY_KEY], deps);
  const [passphrase, identity] = [given.get(PASSPHRASE_KEY), given.get(IDENTITY_KEY)];
  if (passphrase !== undefined && identity === undefined) return { kind: "passphrase", passphrase };
  if (identity !== undefined && passphrase === undefined)
    return { kind: "identities", identities: requireIdentities(identity, IDENTITY_KEY) };
  throw new OperatorError({
    exit: "usage",
    what:
      given.size === 0
        ? "No key was given to open the backup."
        : "Two keys were given, and a backup is opened with one.",
    remedy: `Give --set-file ${IDENTITY_KEY}=FILE with the file of age-keygen, or --set-file ${PASSPHRASE_KEY}=FILE.`,
  });
}

/** Reads the values of `--set-file`. Throws (`usage`) for a key that is not one of `known`. */
export async function readBackupKeys(
  setFile: readonly string[],
  known: readonly string[],
  deps: Deps,
): Promise<ReadonlyMap<string, string>> {
  const given = await readAssignments({ set: [], setFile }, deps);
  const unknown = [...given.keys()].filter((key) => !known.includes(key));
  if (unknown.length === 0) return given;
  throw new OperatorError({
    exit: "usage",
    what: `--set-file does not take ${unknown.join(", ")} here.`,
    remedy: `It takes ${known.join(" and ")}.`,
  });
}

/** Parts the `--set-file` flags of a join: what opens a backup is no setting. */
export function splitBackupKeys(setFile: readonly string[]): {
  readonly ofBackup: readonly string[];
  readonly others: readonly string[];
} {
  const isOfBackup = (one: string) => [PASSPHRASE_KEY, IDENTITY_KEY].some((key) => one.startsWith(`${key}=`));
  return { ofBackup: setFile.filter(isOfBackup), others: setFile.filter((one) => !isOfBackup(one)) };
}
