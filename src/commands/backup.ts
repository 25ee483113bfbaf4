import { isAbsolute, normalize } from "node:path";
import { BACKUP_MARK, createBackup, LONGEST_SILENCE_MS, type MadeBackup } from "../backup/create-backup.ts";
import { type Locked, requirePassphrase, requireRecipients } from "../backup/encryption.ts";
import {
  isOnOwnDisk,
  keepGood,
  parseBackupRecord,
  type RecordedBackup,
  renderBackupRecord,
  requireMounted,
} from "../backup/keep-good.ts";
import { openNodeFiles } from "../backup/node-files.ts";
import { newestGood, takeSnapshot } from "../backup/pinset-snapshots.ts";
import { PROJECT_LABEL } from "../docker/compose-document.ts";
import { describeRefusal } from "../database/connection-fault.ts";
import { readClientMajor } from "../dumps/client-version.ts";
import { findDumpImage } from "../dumps/dump-image.ts";
import { createThrowaway } from "../dumps/throwaway.ts";
import { messageOf, OperatorError, type VerbExit } from "../errors.ts";
import { PASSPHRASE_KEY, readBackupKeys } from "../join/from-backup/backup-key.ts";
import {
  databaseOf,
  type InstalledMaster,
  readInstalledMaster,
  refuseUnfinishedRestore,
  refuseUnfinishedRotation,
} from "../join/installed-node.ts";
import { onceFree } from "../machine/lock.ts";
import { withHeartbeat } from "../pinset/heartbeat.ts";
import { lockNames, NAMES, WRITER_IDENTITY } from "../settings/layout.ts";
import { isDatabaseElsewhere } from "../settings/postgres-target.ts";
import { decimalBytes, duration, utcSeconds } from "../units.ts";
import type { World } from "../world.ts";

/** The flags of `backup create`. */
export interface BackupCreateFlags {
  readonly baseDir?: string;
  /** Left out: BACKUP_DIR. */
  readonly to?: string;
  /** True for a run that cron has started. */
  readonly scheduled: boolean;
  readonly recipient: readonly string[];
  readonly setFile: readonly string[];
}

const VERB = "backup create";

/**
 * `backup create --to DIR`: all that a new machine needs to be this master, in one encrypted file. It has the lock of joins: what they
 * change is not in two states in it. The services do not wait for it.
 */
export async function backupCreate(flags: BackupCreateFlags, world: World): Promise<VerbExit> {
  const { host, reporter } = world;
  const given = await readLocked(flags, world);
  if (flags.to !== undefined && !isAbsolute(flags.to))
    throw new OperatorError({
      exit: "usage",
      what: `--to is ${JSON.stringify(flags.to)}; it must be an absolute path of a directory.`,
      remedy: "For example: --to /mnt/backup",
    });
  const { layout } = await readInstalledMaster(world, flags.baseDir);
  if (flags.scheduled) {
    await world.rotateLog(layout.backupLog);
    // `logs` sorts by it what follows.
    reporter.note(`${utcSeconds(host.clock.now())} ${VERB}`);
  }
  const holder = { pid: world.pid, verb: VERB, since: host.clock.now().toISOString() };
  const take = () => world.takeLock(lockNames(layout.baseDir).node, holder);
  const lock = await (flags.scheduled ? onceFree(host, take) : take());
  try {
    // Read again: another run may have changed it before this one had the lock.
    const master = await readInstalledMaster(world, flags.baseDir);
    const { directory, locked } = chooseTarget(master, flags.to, given);
    const from = host.clock.monotonicMs();
    const run = async (lastBytes: number) => {
      await refuseUnfinishedRotation(host, layout);
      return await makeBackup(world, master, { directory, locked, lastBytes });
    };
    const regular = master.values("BACKUP_DIR");
    const keep = Number(master.values("BACKUP_KEEP"));
    const { isOwnDisk, exit, ...made } =
      directory === regular
        ? await keepRecord(world, master, { directory, keep }, run)
        : await makeByHand(world, master, { directory, isOnlyOne: regular === undefined }, run);
    const ms = host.clock.monotonicMs() - from;
    reporter.result({
      data: { verb: VERB, ...made, durationMs: ms, isOwnDisk },
      lines: [
        ...linesOfMade(made, ms),
        ...(isOwnDisk ? ["  It is on this machine's own disk: copy it to another machine."] : []),
      ],
    });
    return exit;
  } finally {
    await lock.release();
  }
}

/** A backup with its record, as cron makes it. Needs the lock of the node. Returns its path. */
export async function backUpRegularly(
  world: World,
  baseDir: string,
  {
    directory,
    recipient,
    keep,
  }: { readonly directory: string; readonly recipient: string; readonly keep: number },
): Promise<string> {
  const master = await readInstalledMaster(world, baseDir);
  const recipients = requireRecipients(recipient, "BACKUP_RECIPIENT");
  const make = (lastBytes: number) =>
    makeBackup(world, master, { directory, locked: { kind: "recipients", recipients }, lastBytes });
  return (await keepRecord(world, master, { directory, keep }, make)).path;
}

/** Flags come before BACKUP_DIR and BACKUP_RECIPIENT. Throws (`usage`) if neither says where, or for whom. */
function chooseTarget(
  { values }: InstalledMaster,
  to: string | undefined,
  given: Locked | null,
): { readonly directory: string; readonly locked: Locked } {
  const regular = values("BACKUP_DIR");
  // However it is written, it is that directory, with its record.
  const isRegular = to !== undefined && regular !== undefined && withoutSlash(to) === withoutSlash(regular);
  const directory = isRegular ? regular : (to ?? regular);
  if (directory === undefined)
    throw new OperatorError({
      exit: "usage",
      what: "It is not said where the backup goes.",
      remedy: "Give --to DIR, or set BACKUP_DIR.",
    });
  const recipient = values("BACKUP_RECIPIENT");
  if (given !== null) return { directory, locked: given };
  if (recipient !== undefined)
    return {
      directory,
      locked: { kind: "recipients", recipients: requireRecipients(recipient, "BACKUP_RECIPIENT") },
    };
  throw new OperatorError({
    exit: "usage",
    what: "A backup is encrypted, for recipients or with a passphrase.",
    why: "It has every secret of this master.",
    remedy: `Give --recipient age1... or --set-file ${PASSPHRASE_KEY}=FILE, or set BACKUP_RECIPIENT.`,
  });
}

function withoutSlash(path: string): string {
  return normalize(path).replace(/(?<=.)\/$/, "");
}

/** `isOwnDisk`: it is lost with this machine. `exit`: `pending` if something of it, or beside it, is not as it should be. */
type PlacedBackup = MadeBackup & { readonly isOwnDisk: boolean; readonly exit: "ok" | "pending" };

/** A backup to another place than BACKUP_DIR. Where there is none, `status` says how old it is. */
async function makeByHand(
  { host }: World,
  { layout }: InstalledMaster,
  { directory, isOnlyOne }: { readonly directory: string; readonly isOnlyOne: boolean },
  run: (lastBytes: number) => Promise<MadeBackup>,
): Promise<PlacedBackup> {
  const isOwnDisk = await isOnOwnDisk(directory, layout.baseDir);
  const one = await run(0);
  const exit = hasPins(one) ? ("ok" as const) : ("pending" as const);
  const made = { ...one, isOwnDisk, exit };
  if (!isOnlyOne) return made;
  const deps = { files: host.files, clock: host.clock, path: layout.backupHeartbeat };
  const summary = `${decimalBytes(made.bytes)}, ${made.path}${lackOf(made)}${isOwnDisk ? OWN_DISK : ""}`;
  const facts = { by_hand: true };
  try {
    await withHeartbeat(deps, VERB, () => Promise.resolve({ exit, summary, facts }));
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    throw thrown.withChanged(`${made.path} was made and is good, but \`fula-node status\` does not know it.`);
  }
  return made;
}

/** Without a snapshot of the pinset, nothing says what is pinned. */
function hasPins({ manifest }: Pick<MadeBackup, "manifest">): boolean {
  return manifest.snapshots.length > 0;
}

function lackOf(made: Pick<MadeBackup, "manifest">): string {
  return hasPins(made) ? "" : ", without a snapshot of the pinset";
}

/** What is said of a backup that is lost with the machine. */
const OWN_DISK = ", on this machine's own disk";

/** Records a run for `status`, and what it made; then removes the good ones that are older than the newest `keep`. */
async function keepRecord(
  world: World,
  { layout, values }: InstalledMaster,
  { directory, keep }: { readonly directory: string; readonly keep: number },
  run: (lastBytes: number) => Promise<MadeBackup>,
): Promise<PlacedBackup> {
  const { host, reporter } = world;
  const channels = await world.openChannels({
    log: layout.alertLog,
    command: values("ALERT_COMMAND"),
    pool: values("CLUSTERNAME") ?? "",
  });
  const deps = { files: host.files, clock: host.clock, path: layout.backupHeartbeat, channels };
  const done: { path: string | null } = { path: null };
  const regular = async () => {
    const before = parseBackupRecord(await host.files.readText(layout.backupRecord));
    const isOwnDisk = await isOnOwnDisk(directory, layout.baseDir);
    await requireMounted(before, isOwnDisk, { directory, recordPath: layout.backupRecord });
    const one = await run(before.at(-1)?.bytes ?? 0);
    const { name, bytes, sha256, path, manifest } = one;
    done.path = path;
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
      host.files.writeAtomic(layout.backupRecord, renderBackupRecord(backups), { mode: 0o600 });
    await save([...before.filter((other) => other.name !== name), newest]);
    const kept = await keepGood(directory, before, newest, keep);
    await save(kept.backups);
    for (const bad of kept.damaged)
      reporter.listen({
        type: "warning",
        text: `${bad} is not what was written. It stays, and does not count.`,
      });
    const good = kept.backups.length - kept.damaged.length;
    const damaged = kept.damaged.length === 0 ? "" : `, ${kept.damaged.length} damaged`;
    const exit = kept.damaged.length === 0 && hasPins(one) ? ("ok" as const) : ("pending" as const);
    return {
      exit,
      summary: `${decimalBytes(bytes)}, ${good} good in ${directory}${damaged}${lackOf(one)}${isOwnDisk ? OWN_DISK : ""}`,
      facts: { by_hand: false },
      made: { ...one, isOwnDisk, exit },
    };
  };
  try {
    return (await withHeartbeat(deps, VERB, regular)).made;
  } catch (thrown) {
    if (!(thrown instanceof OperatorError) || done.path === null) throw thrown;
    throw thrown.withChanged(
      `${done.path} was made and is good, but perhaps it is not on record: then retention does not count it.`,
    );
  }
}

function linesOfMade(
  { path, bytes, plainBytes, dumpBytes, manifest }: MadeBackup,
  ms: number,
): readonly string[] {
  const { peers, snapshots } = manifest;
  return [
    `Done: ${path}`,
    `  ${decimalBytes(bytes)} (${decimalBytes(plainBytes)} unpacked), in ${duration(ms)}, read back and the same.`,
    `  database: ${decimalBytes(dumpBytes)}; snapshots: ${snapshots.length}; nothing was stopped.`,
    ...(peers.cluster === null
      ? [
          "  Not in it: the identity of the writer, which fula-node did not create.",
          "  Copy its ipfs-cluster/identity.json and kubo's config yourself.",
        ]
      : []),
    ...(snapshots.length === 0 ? ["  Not in it: a snapshot of the pinset. There is none that is good."] : []),
    "  Not in it: blocks, which the storage nodes have, and the edge's certificates.",
  ];
}

/** For whom a backup is encrypted, as the flags say; null if they do not. Throws (`usage`) for two kinds of keys. */
async function readLocked({ recipient, setFile }: BackupCreateFlags, world: World): Promise<Locked | null> {
  const passphrase = (await readBackupKeys(setFile, [PASSPHRASE_KEY], world)).get(PASSPHRASE_KEY);
  if (passphrase !== undefined && recipient.length === 0)
    return { kind: "passphrase", passphrase: requirePassphrase(passphrase, PASSPHRASE_KEY) };
  if (passphrase === undefined && recipient.length > 0)
    return { kind: "recipients", recipients: requireRecipients(recipient.join(" "), "--recipient") };
  if (passphrase === undefined) return null;
  throw new OperatorError({
    exit: "usage",
    what: "A backup is encrypted for recipients, or with a passphrase, not both.",
    remedy: "Give one of them.",
  });
}

/** Needs the lock of the node. */
async function makeBackup(
  world: World,
  master: InstalledMaster,
  {
    directory,
    locked,
    lastBytes,
  }: { readonly directory: string; readonly locked: Locked; readonly lastBytes: number },
): Promise<MadeBackup> {
  const { host, environment, hostname, version, reporter } = world;
  const { layout, values } = master;
  const given = { ...world, warn: (text: string) => reporter.listen({ type: "warning", text }) };
  await refuseUnfinishedRestore(host, layout);
  const target = databaseOf(master);
  const answer = await host.postgres.ask(target);
  if (answer.kind !== "open") throw new OperatorError(describeRefusal(target, answer));
  const engine = createThrowaway(environment);
  // What a killed run left.
  await engine.removeMarked(BACKUP_MARK);
  try {
    const suffix = host.random.hex(4);
    const image = await findDumpImage(host.docker, answer.serverVersion, values("POSTGRES_IMAGE"), (id) =>
      readClientMajor(engine, { name: `fula-backup-client-${suffix}`, mark: BACKUP_MARK, image: id }),
    );
    await engine.removeMarked(BACKUP_MARK);
    const writer = values("WRITER_DIR") ?? "";
    const isHere = (await host.files.stat(`${writer}/${WRITER_IDENTITY}`)) !== null;
    if (!isHere) await refuseLostWriter(host, writer);
    const writerDir = isHere ? writer : null;
    const openFiles = async () => {
      await takeSnapshot(given, layout);
      const { files, snapshots } = await openNodeFiles(
        { layout, writerDir },
        () => newestGood(given, layout),
        () => host.files.readText(layout.snapshotMemory),
      );
      return { files, snapshots: snapshots.map(({ name }) => name) };
    };
    const { freeBytes } = await host.files.space(directory);
    return await createBackup(engine, {
      directory,
      locked,
      pool: values("CLUSTERNAME") ?? "",
      master: {
        id: values("MASTER_ID") ?? null,
        name: values("CLUSTER_PEERNAME") ?? hostname,
        hostname,
        base_dir: layout.baseDir,
        writer_dir: writerDir,
      },
      toolVersion: version,
      at: host.clock.now(),
      openFiles,
      target,
      isDatabaseElsewhere: isDatabaseElsewhere(values),
      serverVersion: answer.serverVersion,
      image: image.id,
      container: `fula-backup-dump-${suffix}`,
      freeBytes,
      lastBytes,
      stop: world.stop,
      longestSilenceMs: LONGEST_SILENCE_MS,
      report: (line) => world.reporter.note(line),
    });
  } finally {
    // The backup is there, or its own error says more. The next one removes what is left.
    await engine.removeMarked(BACKUP_MARK).catch((thrown: unknown) => given.warn(messageOf(thrown)));
  }
}

/** A writer of ours without its identity would be backed up as one that others look after. Throws (`drift`). */
async function refuseLostWriter({ docker }: World["host"], directory: string): Promise<void> {
  const found = await docker.container(NAMES.cluster);
  if (found === null || found.labels[PROJECT_LABEL] !== NAMES.writerProject) return;
  throw new OperatorError({
    exit: "drift",
    what: `${directory}/${WRITER_IDENTITY} is missing, and the writer is one of fula-node.`,
    why: "A backup without it could not bring the peer back. Perhaps a disk is not mounted.",
    remedy: "See how the writer stands (fula-node status), repair that, then run again.",
  });
}
