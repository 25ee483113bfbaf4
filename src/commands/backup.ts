import { isAbsolute, normalize } from "node:path";
import { BACKUP_MARK, createBackup, LONGEST_SILENCE_MS, type MadeBackup } from "../backup/create-backup.ts";
import { type Locked, requirePassphrase, requireRecipients } from "../backup/encryption.ts";
import { isOnOwnDisk } from "../backup/keep-good.ts";
import { openNodeFiles } from "../backup/node-files.ts";
import { newestGood, takeSnapshot } from "../backup/pinset-snapshots.ts";
import { faultsOf, hasPins, makeRegular, type PlacedBackup } from "../backup/regular-backup.ts";
import { PROJECT_LABEL } from "../docker/compose-document.ts";
import { describeRefusal } from "../database/connection-fault.ts";
import { readClientMajor } from "../dumps/client-version.ts";
import { findDumpImage } from "../dumps/dump-image.ts";
import { createThrowaway } from "../dumps/throwaway.ts";
import { messageOf, OperatorError, type VerbExit } from "../errors.ts";
import { requireRoot, resolveBaseDir } from "../join/base-dir.ts";
import { PASSPHRASE_KEY, readBackupKeys } from "../join/from-backup/backup-key.ts";
import {
  databaseOf,
  type InstalledMaster,
  lookAtPlace,
  readInstalledMaster,
  refuseUnfinishedRestore,
  refuseUnfinishedRotation,
} from "../join/installed-node.ts";
import { readMasterSettings } from "../join/settings-source.ts";
import { type Lock, onceFree } from "../machine/lock.ts";
import { withHeartbeat } from "../pinset/heartbeat.ts";
import type { Values } from "../settings/context.ts";
import {
  lockNames,
  MASTER_BASE_DIR,
  masterLayout,
  type MasterLayout,
  NAMES,
  WRITER_IDENTITY,
} from "../settings/layout.ts";
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
 * change is not in two states in it. The services do not wait for it. What cron starts is recorded, whatever it fails of.
 */
export async function backupCreate(flags: BackupCreateFlags, world: World): Promise<VerbExit> {
  const { host, reporter } = world;
  const held: Held = { lock: null, fromMs: 0 };
  try {
    const { isOwnDisk, exit, ...made } = isNightly(flags)
      ? await backUpNightly(flags, world, held)
      : await backUpAsAsked(flags, world, held);
    const ms = host.clock.monotonicMs() - held.fromMs;
    reporter.result({
      data: { verb: VERB, ...made, durationMs: ms, isOwnDisk },
      lines: [
        ...linesOfMade(made, ms),
        ...(isOwnDisk ? ["  It is on this machine's own disk: copy it to another machine."] : []),
      ],
    });
    return exit;
  } finally {
    await held.lock?.release();
  }
}

/** The lock, once a run has it, and when that was. It is released after the run is recorded. */
interface Held {
  lock: Lock | null;
  fromMs: number;
}

/** What cron starts. With `--to`, it is another backup than that of every night. */
function isNightly({ scheduled, to }: BackupCreateFlags): boolean {
  return scheduled && to === undefined;
}

/** Each part of it can fail, and is recorded then: the wait for the lock, the settings, the backup. */
async function backUpNightly(flags: BackupCreateFlags, world: World, held: Held): Promise<PlacedBackup> {
  const { host } = world;
  requireRoot(host, "the settings contain secrets");
  const layout = masterLayout(await resolveBaseDir(host, flags.baseDir, MASTER_BASE_DIR));
  const { kind, signs } = await lookAtPlace(host, layout.baseDir, "master");
  // Where no master is, nothing is written. This says why.
  if (kind !== "master" || signs.length === 0) await readInstalledMaster(world, flags.baseDir);
  // As far as they can be read: for an alarm. The run reads them again, and says why if they can't.
  const known = await readMasterSettings(world, layout.envFile, "none").catch(() => null);
  const values = (key: string) => known?.settings.get(key)?.value;
  return await recordRun(world, { layout, values }, async () => {
    await beginLog(world, layout);
    return await prepare(flags, world, { layout, given: await readLocked(flags, world), held });
  });
}

/** By hand, or to another directory. */
async function backUpAsAsked(flags: BackupCreateFlags, world: World, held: Held): Promise<PlacedBackup> {
  const given = await readLocked(flags, world);
  if (flags.to !== undefined && !isAbsolute(flags.to))
    throw new OperatorError({
      exit: "usage",
      what: `--to is ${JSON.stringify(flags.to)}; it must be an absolute path of a directory.`,
      remedy: "For example: --to /mnt/backup",
    });
  const { layout } = await readInstalledMaster(world, flags.baseDir);
  if (flags.scheduled) await beginLog(world, layout);
  const prepared = await prepare(flags, world, { layout, given, held });
  const { master, directory } = prepared;
  return directory === master.values("BACKUP_DIR")
    ? await recordRun(world, master, () => Promise.resolve(prepared))
    : await makeByHand(world, prepared);
}

async function beginLog(world: World, { backupLog }: MasterLayout): Promise<void> {
  await world.rotateLog(backupLog);
  // `logs` sorts by it what follows.
  world.reporter.note(`${utcSeconds(world.host.clock.now())} ${VERB}`);
}

/** A backup that only has to be made. `make` gets the size of the one before it, 0 if there is none. */
interface Prepared {
  readonly master: InstalledMaster;
  readonly directory: string;
  readonly keep: number;
  readonly make: (lastBytes: number) => Promise<MadeBackup>;
}

/** Takes the lock, then reads the settings: another run may have changed them before. */
async function prepare(
  flags: BackupCreateFlags,
  world: World,
  {
    layout,
    given,
    held,
  }: { readonly layout: MasterLayout; readonly given: Locked | null; readonly held: Held },
): Promise<Prepared> {
  const { host, pid } = world;
  const holder = { pid, verb: VERB, since: host.clock.now().toISOString() };
  const take = () => world.takeLock(lockNames(layout.baseDir).node, holder);
  held.lock = await (flags.scheduled ? onceFree(host, take) : take());
  held.fromMs = host.clock.monotonicMs();
  const master = await readInstalledMaster(world, flags.baseDir);
  const { directory, locked } = chooseTarget(master, flags, given);
  return {
    master,
    directory,
    keep: Number(master.values("BACKUP_KEEP")),
    make: (lastBytes) => makeBackup(world, master, { directory, locked, lastBytes }),
  };
}

/**
 * The backup before an upgrade, with its record, as cron makes it. It is of what is installed: the settings of the run say where it
 * goes and for whom, and take the place only of those that are not valid any more. Needs the lock of the node. Returns its path.
 */
export async function backUpRegularly(
  world: World,
  layout: MasterLayout,
  {
    directory,
    recipient,
    keep,
    desired,
  }: {
    readonly directory: string;
    readonly recipient: string;
    readonly keep: number;
    /** The settings of the run. */
    readonly desired: Values;
  },
): Promise<string> {
  const { settings, problems } = await readMasterSettings(world, layout.envFile, "none");
  const invalid = new Set(problems.map(({ subject }) => subject));
  const values = (key: string) => settings.get(key)?.value ?? (invalid.has(key) ? desired(key) : undefined);
  const master = { layout, values };
  const recipients = requireRecipients(recipient, "BACKUP_RECIPIENT");
  const make = (lastBytes: number) =>
    makeBackup(world, master, { directory, locked: { kind: "recipients", recipients }, lastBytes });
  return (await recordRun(world, master, () => Promise.resolve({ master, directory, keep, make }))).path;
}

/** Flags come before BACKUP_DIR and BACKUP_RECIPIENT. Throws (`usage`; for cron `settings`) if neither says where, or for whom. */
function chooseTarget(
  { values }: InstalledMaster,
  flags: BackupCreateFlags,
  given: Locked | null,
): { readonly directory: string; readonly locked: Locked } {
  const { to } = flags;
  const regular = values("BACKUP_DIR");
  const recipient = values("BACKUP_RECIPIENT");
  if (isNightly(flags) && (regular === undefined || (given === null && recipient === undefined)))
    throw new OperatorError({
      exit: "settings",
      what: "BACKUP_DIR or BACKUP_RECIPIENT is not set, but cron starts a backup every night.",
      remedy: "Set both. Or, for no more backups: fula-node join-as-master. It removes the cron job.",
    });
  // However it is written, it is that directory, with its record.
  const isRegular = to !== undefined && regular !== undefined && withoutSlash(to) === withoutSlash(regular);
  const directory = isRegular ? regular : (to ?? regular);
  if (directory === undefined)
    throw new OperatorError({
      exit: "usage",
      what: "It is not said where the backup goes.",
      remedy: "Give --to DIR, or set BACKUP_DIR.",
    });
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

/** A backup to another place than BACKUP_DIR. Where there is none, `status` says how old it is. */
async function makeByHand({ host }: World, { master, directory, make }: Prepared): Promise<PlacedBackup> {
  const { layout, values } = master;
  const isOwnDisk = await isOnOwnDisk(directory, layout.baseDir);
  const one = await make(0);
  const exit = hasPins(one) ? ("ok" as const) : ("pending" as const);
  const made = { ...one, isOwnDisk, exit };
  if (values("BACKUP_DIR") !== undefined) return made;
  const deps = { files: host.files, clock: host.clock, path: layout.backupHeartbeat };
  const summary = `${decimalBytes(made.bytes)}, ${made.path}${faultsOf(made, isOwnDisk)}`;
  const facts = { by_hand: true };
  try {
    await withHeartbeat(deps, VERB, () => Promise.resolve({ exit, summary, facts }));
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    throw thrown.withChanged(`${made.path} was made and is good, but \`fula-node status\` does not know it.`);
  }
  return made;
}

/** A backup in BACKUP_DIR. Records the run for `status`, also if `start` or the backup fails. */
async function recordRun(
  world: World,
  { layout, values }: InstalledMaster,
  start: () => Promise<Prepared>,
): Promise<PlacedBackup> {
  const { host, reporter } = world;
  const channels = await world.openChannels({
    log: layout.alertLog,
    command: values("ALERT_COMMAND"),
    pool: values("CLUSTERNAME") ?? "",
  });
  const deps = { files: host.files, clock: host.clock, path: layout.backupHeartbeat, channels };
  const warn = (text: string) => reporter.listen({ type: "warning", text });
  const done: { path: string | null } = { path: null };
  const onMade = (path: string) => void (done.path = path);
  try {
    const run = async () => makeRegular({ files: host.files, warn, onMade }, layout, await start());
    return (await withHeartbeat(deps, VERB, run)).made;
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
  await refuseUnfinishedRotation(host, layout);
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
