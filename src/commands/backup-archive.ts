import { basename, isAbsolute, resolve } from "node:path";
import gt from "semver/functions/gt.js";
import valid from "semver/functions/valid.js";
import type { BackupManifest } from "../backup/backup-manifest.ts";
import { requireNewDirectory, requireUnchanged, unpackArchive, verifyArchive } from "../backup/unpack.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import { requireRoot } from "../join/base-dir.ts";
import { readOpener } from "../join/from-backup/backup-key.ts";
import { age, countOf, decimalBytes } from "../units.ts";
import type { World } from "../world.ts";

/** The flags of `backup verify`. */
export interface BackupVerifyFlags {
  readonly setFile: readonly string[];
}

/** The flags of `backup unpack`. */
export interface BackupUnpackFlags extends BackupVerifyFlags {
  readonly to: string;
}

/** `backup verify FILE`: reads every byte of an archive and compares it with its list. Writes nothing. */
export async function backupVerify(file: string, flags: BackupVerifyFlags, world: World): Promise<VerbExit> {
  const opener = await readOpener(flags.setFile, world);
  const path = file;
  const read = await verifyArchive(path, opener);
  const { version } = world;
  const maker = read.manifest.tool.version;
  const isNewer = valid(maker) !== null && valid(version) !== null && gt(maker, version);
  world.reporter.result({
    data: { verb: "backup verify", verdict: "verified", file: path, ...read },
    lines: [
      `Verified: ${basename(path)}`,
      `  ${countOf(read.entries, "part")}, ${decimalBytes(read.bytes)} unpacked`,
      ...describeArchive(read.manifest, world.host.clock.now()),
      ...(isNewer ? [`  To restore it, use that version: npx fula-node@${maker}. This is ${version}.`] : []),
    ],
  });
  return "ok";
}

/** `backup unpack FILE --to DIR`: puts what is in an archive into a new directory, after all of it was read. */
export async function backupUnpack(file: string, flags: BackupUnpackFlags, world: World): Promise<VerbExit> {
  requireRoot(world.host, "what it unpacks is secret, and belongs to several users");
  if (!isAbsolute(flags.to))
    throw new OperatorError({
      exit: "usage",
      what: `--to is ${JSON.stringify(flags.to)}; it must be an absolute path of a new directory.`,
      remedy: "For example: --to /root/unpacked",
    });
  const to = resolve(flags.to);
  await requireNewDirectory(to);
  const opener = await readOpener(flags.setFile, world);
  const leastBytes = await requireUnchanged(file, opener);
  const space = (path: string) => world.host.files.space(path);
  world.reporter.listen({ type: "change-started", step: "unpack", summary: `unpack to ${to}` });
  const read = await unpackArchive(file, opener, to, { space, leastBytes });
  world.reporter.result({
    data: { verb: "backup unpack", file, directory: to, ...read },
    lines: [
      `Done: ${to}: ${countOf(read.entries, "part")}, ${decimalBytes(read.bytes)}.`,
      ...describeArchive(read.manifest, world.host.clock.now()),
      "  It has every secret of that master: remove it when you no longer need it.",
    ],
  });
  return "ok";
}

/** Whose archive it is, when it was made, and what is in it, as lines of a result. */
export function describeArchive(manifest: BackupManifest, now: Date): readonly string[] {
  const { master, pool, created_at: at, database, peers, snapshots, tool } = manifest;
  return [
    `  of the master ${master.name} in the pool ${pool}, made ${age(now.getTime() - Date.parse(at))} ago by ${tool.version}`,
    `  database: ${database.name}, Postgres ${database.server_version}, schema ${database.migration === null ? "none" : String(database.migration).padStart(3, "0")}`,
    `  ipfs-cluster: ${peers.cluster ?? "not in it"}`,
    `  kubo: ${peers.kubo ?? "not in it"}`,
    ...(snapshots.length === 0 ? ["none"] : snapshots).map(
      (name, index) => `  ${(index === 0 ? "snapshots:" : "").padEnd("snapshots:".length)} ${name}`,
    ),
  ];
}
