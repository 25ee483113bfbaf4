import { basename } from "node:path";
import { readArchiveFile } from "../backup/archive-file.ts";
import { readArchive } from "../backup/archive-reader.ts";
import type { BackupManifest } from "../backup/backup-manifest.ts";
import { decrypt, type Opener, requireIdentities } from "../backup/encryption.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import { readAssignments } from "../join/assignments.ts";
import { age, countOf, decimalBytes } from "../units.ts";
import type { World } from "../world.ts";

/** The flags of `backup verify`. */
export interface BackupVerifyFlags {
  readonly setFile: readonly string[];
}

const PASSPHRASE = "BACKUP_PASSPHRASE";
const IDENTITY = "BACKUP_IDENTITY";

/** `backup verify FILE`: reads every byte of an archive and compares it with its list. Writes nothing. */
export async function backupVerify(file: string, flags: BackupVerifyFlags, world: World): Promise<VerbExit> {
  const opener = await readOpener(flags.setFile, world);
  const path = file;
  const read = await readArchive(decrypt(readArchiveFile(path), opener, basename(path)), {
    manifest: () => {},
    entry: () => Promise.resolve(null),
  });
  world.reporter.result({
    data: { verb: "backup verify", verdict: "verified", file: path, ...read },
    lines: [
      `Verified: ${basename(path)}: ${countOf(read.entries, "part")}, ${decimalBytes(read.bytes)} unpacked.`,
      ...linesOf(read.manifest, world.host.clock.now()),
    ],
  });
  return "ok";
}

function linesOf(manifest: BackupManifest, now: Date): readonly string[] {
  const { master, pool, created_at: at, database, peers, snapshots, tool } = manifest;
  return [
    `  of the master ${master.name} in the pool ${pool}, made ${age(now.getTime() - Date.parse(at))} ago by ${tool.version}`,
    `  database: ${database.name}, Postgres ${database.server_version}, schema ${database.migration ?? "none"}`,
    `  peers: ${[peers.cluster, peers.kubo].map((id) => id ?? "not in it").join(", ")}`,
    `  snapshots: ${snapshots.length === 0 ? "none" : snapshots.join(", ")}`,
  ];
}

/** What opens the archive. Throws (`usage`) without one, or with something else. */
async function readOpener(setFile: readonly string[], world: World): Promise<Opener> {
  const given = await readKeys(setFile, [PASSPHRASE, IDENTITY], world);
  const [passphrase, identity] = [given.get(PASSPHRASE), given.get(IDENTITY)];
  if (passphrase !== undefined && identity === undefined) return { kind: "passphrase", passphrase };
  if (identity !== undefined && passphrase === undefined)
    return { kind: "identities", identities: requireIdentities(identity, IDENTITY) };
  throw new OperatorError({
    exit: "usage",
    what: "A backup is opened with one key.",
    remedy: `Give --set-file ${IDENTITY}=FILE with the file of age-keygen, or --set-file ${PASSPHRASE}=FILE.`,
  });
}

async function readKeys(
  setFile: readonly string[],
  known: readonly string[],
  world: World,
): Promise<ReadonlyMap<string, string>> {
  const given = await readAssignments({ set: [], setFile }, world);
  const unknown = [...given.keys()].filter((key) => !known.includes(key));
  if (unknown.length === 0) return given;
  throw new OperatorError({
    exit: "usage",
    what: `--set-file does not take ${unknown.join(", ")} here.`,
    remedy: `It takes ${known.join(" and ")}.`,
  });
}
