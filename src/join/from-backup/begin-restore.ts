import { basename, dirname } from "node:path";
import gt from "semver/functions/gt.js";
import valid from "semver/functions/valid.js";
import type { BackupManifest } from "../../backup/backup-manifest.ts";
import type { Opener } from "../../backup/encryption.ts";
import {
  isUnpacking,
  placeStage,
  readStage,
  type Stage,
  stageOf,
  unpackStage,
} from "../../backup/restore-stage.ts";
import {
  ENV_ENTRY,
  partialOf,
  previewArchive,
  requireUnchanged,
  verifyArchive,
} from "../../backup/unpack.ts";
import { openJournal } from "../../engine/journal.ts";
import { run, type RunOutcome } from "../../engine/run.ts";
import type { Change, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import { readEnvFile } from "../../settings/context.ts";
import { baseDirFlag, type MasterLayout, NAMES } from "../../settings/layout.ts";
import { isDatabaseElsewhere } from "../../settings/postgres-target.ts";
import { savedValue } from "../../settings/settings.ts";
import { age, decimalBytes } from "../../units.ts";
import { MASTER_MINIMUM_FREE_BYTES } from "../../preflight/checks.ts";
import { requireRoot } from "../base-dir.ts";
import { refuseOtherKind } from "../installed-node.ts";
import type { JoinDeps, JoinFlags } from "../join-run.ts";
import { requireDocker, whySilent } from "../silent-docker.ts";
import { readOpener, splitBackupKeys } from "./backup-key.ts";
import { findOldMachine, OLD_MASTER_CHECK, refuseLiving, requireOldMachineGone } from "./old-machine.ts";

/** A restore that goes on, and the flags of the join that ends it. */
export interface Restoring {
  /** Null: nothing is unpacked yet, since this is a dry run. */
  readonly stage: Stage | null;
  readonly flags: JoinFlags;
  /** What was changed before the join; null if nothing was left to do before it. */
  readonly outcome: RunOutcome | null;
}

type RestoreChange = Change & { readonly kind: "unpack" | "place" };

/**
 * Unpacks the backup of `--from-backup` into an empty base directory and puts its files in place, as a run of its own: the join needs
 * the settings in them. Goes on with a restore that was interrupted, with the flag and without it. Null if there is none.
 */
export async function beginRestore(
  deps: JoinDeps,
  {
    flags,
    layout,
    since,
  }: { readonly flags: JoinFlags; readonly layout: MasterLayout; readonly since: string },
): Promise<Restoring | null> {
  const { host, reporter, questions, pid, version } = deps;
  const { baseDir } = layout;
  const file = flags.fromBackup;
  if (file === undefined && host.system.uid() !== 0) return null;
  const before = await readStage(host.files, baseDir);
  if (file === undefined && before === null) {
    if (await isUnpacking(host.files, baseDir)) throw wasCutOff(baseDir);
    return null;
  }
  requireRoot(host, "a backup has secrets and files of several users");
  const { ofBackup, others } = splitBackupKeys(flags.setFile ?? []);
  if (before !== null && file !== undefined && basename(file) !== before.archive) throw isAnother(before);
  const isIgnored = flags.ignore.includes(OLD_MASTER_CHECK);
  if (before !== null) await refuseLivingAgain(host, before, isIgnored);
  const begun = before ?? (await judge(deps, { flags, layout, ofBackup }));
  const { dryRun, yes } = flags;
  const step = filesOfBackup({
    layout,
    about: describe(begun.manifest, host.clock.now()),
    unpack: () =>
      "opener" in begun
        ? unpackStage(file ?? "", begun.opener, baseDir, host, begun.leastBytes)
        : Promise.resolve(),
  });
  let outcome: RunOutcome | null = null;
  if (before?.isPlaced !== true) {
    reporter.note(`fula-node ${version} · join-as-master · ${baseDir} (from a backup)`);
    const { files } = host;
    const attempt = `${since}-${pid}`;
    outcome = await run({
      steps: [step],
      host,
      journal: openJournal({ files, path: layout.journal, attempt, version, now: () => host.clock.now() }),
      listen: (event) => reporter.listen(event),
      ask:
        questions === null || dryRun ? null : (question, byDefault) => questions.confirm(question, byDefault),
      dryRun,
      yes,
      adopted: new Set(),
      consents: new Set(),
    });
    if (dryRun)
      for (const line of [
        "  What comes after is planned once these settings are in place. A run without",
        "  --dry-run also asks whether the old machine is off, if nothing here knows it.",
      ])
        reporter.note(line);
  }
  const hasWriter = begun.manifest.peers.cluster !== null;
  const { fromBackup: _file, oldMachineIsOff: _name, ...rest } = flags;
  return {
    stage: await readStage(host.files, baseDir),
    outcome,
    flags: {
      ...rest,
      setFile: others,
      ignore: flags.ignore.filter((check) => check !== OLD_MASTER_CHECK),
      provisionWriter: flags.provisionWriter || hasWriter,
      adopt: hasWriter ? [...new Set([...flags.adopt, "writer"])] : flags.adopt,
    },
  };
}

/** The old machine may have come back since the files were unpacked. Once one of these is here, it may be what answers. */
async function refuseLivingAgain(
  host: HostReader,
  { directory, manifest }: Stage,
  isIgnored: boolean,
): Promise<void> {
  const env = await host.files.readText(`${directory}/${ENV_ENTRY}`);
  if (env === null || (await runsHere(host))) return;
  refuseLiving(manifest, await findOldMachine(host, { manifest, env }), isIgnored);
}

/** While Docker is silent, nothing of ours runs. */
async function runsHere(host: HostReader): Promise<boolean> {
  if ((await whySilent(host)) !== null) return false;
  const names = [NAMES.cluster, NAMES.pinningApi, NAMES.webui];
  const found = await Promise.all(names.map((name) => host.docker.container(name)));
  return found.some((one) => one !== null);
}

/**
 * Throws (`settings`) if a run gives a setting that decides which master this is another value than the backup has: the writer would
 * get a new peer id, or the pool another name.
 */
export function refuseOtherMaster(
  { manifest: { master, pool, database } }: Pick<Stage, "manifest">,
  values: (key: string) => string | undefined,
): void {
  if (!database.is_elsewhere && isDatabaseElsewhere(values))
    throw new OperatorError({
      exit: "settings",
      what: `POSTGRES_HOST is ${values("POSTGRES_HOST") ?? ""}, and the database of this backup was on its own machine.`,
      why: "A restore puts the database into the Postgres of this machine only. On the other one, its rows would be missing.",
      remedy:
        "Run again without POSTGRES_HOST (--set POSTGRES_HOST=127.0.0.1). To have the rows elsewhere: fula-node backup unpack, then pg_restore of its database.dump.",
    });
  for (const [key, ofBackup] of [
    ["CLUSTERNAME", pool],
    ["WRITER_DIR", master.writer_dir],
  ] as const) {
    const value = values(key);
    if (ofBackup === null || (value ?? "") === ofBackup) continue;
    throw new OperatorError({
      exit: "settings",
      what: `${key} is ${value ?? "not set"}, and in the backup it is ${ofBackup}.`,
      why: "A restore makes the same master again: another one would have other peer ids, which no storage node trusts.",
      remedy: `Run again with --set ${key}=${ofBackup}. A disk for it can be mounted there.`,
    });
  }
}

/** What this step changes is all before the join: `.env`, keys, compose files, snapshots, the identities of the writer. */
function filesOfBackup(given: {
  readonly layout: MasterLayout;
  readonly about: string;
  readonly unpack: () => Promise<unknown>;
}): StepSpec<{ readonly stage: Stage | null }, RestoreChange> {
  const { baseDir } = given.layout;
  return {
    id: "from-backup",
    title: "files of the backup",
    touches: "Unpacks a backup below the base directory, and puts its files in place.",
    async probe({ files }) {
      const stage = await readStage(files, baseDir);
      const evidence = {
        [stageOf(baseDir)]: stage === null ? "is missing" : stage.isPlaced ? "is in place" : "is unpacked",
      };
      return { state: stage?.isPlaced === true ? "ours" : "absent", seen: { stage }, evidence };
    },
    plan({ seen: { stage } }) {
      if (stage?.isPlaced === true) return [];
      const place: RestoreChange = {
        kind: "place",
        summary: `put its files into ${baseDir} and the writer's`,
      };
      return stage === null ? [{ kind: "unpack", summary: `unpack ${given.about}` }, place] : [place];
    },
    async apply({ kind }, host, report) {
      if (kind === "unpack") {
        report("unpacking it");
        await given.unpack();
        return;
      }
      const stage = await readStage(host.files, baseDir);
      if (stage !== null) await placeStage(stage, baseDir, host);
    },
    async verify({ files }) {
      if ((await files.stat(given.layout.envFile)) !== null) return;
      throw new OperatorError({ exit: "unhealthy", what: `${given.layout.envFile} is not in place.` });
    },
  };
}

function describe({ master, pool, created_at: at, tool }: BackupManifest, now: Date): string {
  return `the backup of ${master.name} in the pool ${pool}, made ${age(now.getTime() - Date.parse(at))} ago by ${tool.version}`;
}

/** Throws if this backup must not be restored on this machine. Changes nothing. */
async function judge(
  deps: JoinDeps,
  {
    flags,
    layout,
    ofBackup,
  }: { readonly flags: JoinFlags; readonly layout: MasterLayout; readonly ofBackup: readonly string[] },
): Promise<{
  readonly manifest: BackupManifest;
  readonly opener: Opener;
  readonly leastBytes: number;
}> {
  const { host, questions, version } = deps;
  const file = flags.fromBackup ?? "";
  if (flags.invite !== undefined)
    throw new OperatorError({
      exit: "usage",
      what: "A machine becomes a master by an invite or from a backup, not both.",
      remedy: "Give --invite or --from-backup.",
    });
  const opener = await readOpener(ofBackup, deps);
  const preview = await previewArchive(file, opener);
  const { manifest } = preview;
  refuseNewer(manifest, version);
  refuseOtherPool(manifest, flags.set);
  const { writer_dir: writerDir } = manifest.master;
  const same: Readonly<Record<string, string>> = {
    CLUSTERNAME: manifest.pool,
    ...(writerDir === null ? {} : { WRITER_DIR: writerDir }),
  };
  const inEnvironment = (key: string) => deps.environment[key] || undefined;
  refuseOtherMaster({ manifest }, (key) => setOf(flags.set, key) ?? inEnvironment(key) ?? same[key]);
  await refuseOtherKind(host, "master");
  await requireDocker(host, "Whether this machine is empty can't be judged.");
  await refuseFilled(host, layout, manifest);
  await requireSpace(host, layout.baseDir, file);
  await requireOldMachineGone({ host, questions }, preview, {
    name: flags.oldMachineIsOff,
    isIgnored: flags.ignore.includes(OLD_MASTER_CHECK),
    dryRun: flags.dryRun,
  });
  deps.reporter.note(`Reading all of ${basename(file)} first.`);
  // A run compares it with its list while it unpacks; what is only planned is not unpacked.
  const leastBytes = flags.dryRun
    ? (await verifyArchive(file, opener)).bytes
    : await requireUnchanged(file, opener);
  return { manifest, opener, leastBytes };
}

/** The join needs this much afterwards; less would end it once the secrets are unpacked. Throws (`preflight`). */
async function requireSpace(
  { files }: Pick<HostReader, "files">,
  baseDir: string,
  file: string,
): Promise<void> {
  const [{ freeBytes }, size] = await Promise.all([files.space(baseDir), files.stat(file)]);
  const needed = MASTER_MINIMUM_FREE_BYTES.baseDir + 2 * (size?.sizeBytes ?? 0);
  if (freeBytes >= needed) return;
  throw new OperatorError({
    exit: "preflight",
    what: `The disk of ${baseDir} has ${decimalBytes(freeBytes)} free, and a restore needs ${decimalBytes(needed)}.`,
    remedy: "Free some space there, or give another directory: --base-dir DIR",
  });
}

function refuseNewer({ tool }: BackupManifest, version: string): void {
  if (valid(tool.version) === null || valid(version) === null || !gt(tool.version, version)) return;
  throw new OperatorError({
    exit: "newer",
    what: `Version ${tool.version} made this backup, and this is version ${version}.`,
    why: "An older version does not know its settings and its schema.",
    remedy: `Use that version: npx fula-node@${tool.version} join-as-master --from-backup FILE`,
  });
}

/** The value that `--set` gives a setting. */
function setOf(set: readonly string[], key: string): string | undefined {
  return set.findLast((one) => one.startsWith(`${key}=`))?.slice(key.length + 1);
}

/** Who names a pool means that one. */
function refuseOtherPool({ pool }: BackupManifest, set: readonly string[]): void {
  const named = setOf(set, "CLUSTERNAME");
  if (named === undefined || named === pool) return;
  throw new OperatorError({
    exit: "foreign",
    what: `This is a backup of the pool ${pool}, not of ${named}.`,
    remedy: `Use a backup of ${named}. Or, if you mean ${pool}: --set CLUSTERNAME=${pool}`,
  });
}

/** Throws (`foreign`) if the machine has anything of a master: a restore never replaces it. */
async function refuseFilled(
  host: HostReader,
  layout: MasterLayout,
  { master, pool }: BackupManifest,
): Promise<void> {
  const { envFile, composeFile, signingKey, verifyingKey, snapshotsDir, snapshotMemory } = layout;
  const paths = [envFile, composeFile, signingKey, verifyingKey, snapshotsDir, snapshotMemory];
  const found = await Promise.all(
    paths.map(async (path) => ((await host.files.stat(path)) === null ? [] : [path])),
  );
  const writerDir = master.writer_dir;
  const hasWriter = writerDir !== null && (await hasFiles(host.files, writerDir));
  const containers = await Promise.all(
    [NAMES.postgres, NAMES.kubo, NAMES.cluster].map(async (name) =>
      (await host.docker.container(name)) === null ? [] : [`the container ${name}`],
    ),
  );
  const volume = await host.docker.volume(NAMES.postgresVolume);
  const things = [
    ...found.flat(),
    ...(hasWriter ? [`files in ${writerDir}`] : []),
    ...containers.flat(),
    ...(volume === null ? [] : [`the volume ${volume.name}`]),
  ];
  if (things.length === 0) return;
  const own = await ownerHere(host, envFile);
  if (own.masterId !== null && own.masterId === master.id)
    throw new OperatorError({
      exit: "foreign",
      what: `This machine is the master of this backup already: it has ${things.join(", ")}.`,
      why: "A restore never replaces a master, also not with an older state of itself.",
      remedy: `To repair it: fula-node join-as-master${baseDirFlag(layout.baseDir)}`,
    });
  throw new OperatorError({
    exit: "foreign",
    what: `This machine is not empty: it has ${things.join(", ")}.`,
    why: `A restore never replaces a master${own.pool === null ? "" : ` (here, one of the pool ${own.pool})`}. The backup is of the pool ${pool}.`,
    remedy:
      "Use an empty machine. Or, if what is listed is not needed: fula-node leave --purge all, or move it away; then run again.",
  });
}

/** False for what a disk has that is mounted there, or in a directory of it: `lost+found`, and empty directories. */
async function hasFiles(files: HostReader["files"], directory: string): Promise<boolean> {
  for (const name of (await files.list(directory)) ?? []) {
    if (name === "lost+found") continue;
    const path = `${directory}/${name}`;
    if ((await files.stat(path))?.kind !== "directory" || (await hasFiles(files, path))) return true;
  }
  return false;
}

async function ownerHere(
  host: HostReader,
  envFile: string,
): Promise<{ readonly pool: string | null; readonly masterId: string | null }> {
  if ((await host.files.stat(envFile)) === null) return { pool: null, masterId: null };
  const file = await readEnvFile(host, envFile);
  return {
    pool: savedValue(file, "CLUSTERNAME") ?? null,
    masterId: savedValue(file, "MASTER_ID") ?? null,
  };
}

function isAnother({ directory, archive }: Stage): OperatorError {
  return new OperatorError({
    exit: "foreign",
    what: `Another backup is being restored here: ${archive}.`,
    remedy: `Finish it: fula-node join-as-master${baseDirFlag(dirname(directory))}. Its files are in ${directory}.`,
  });
}

function wasCutOff(baseDir: string): OperatorError {
  return new OperatorError({
    exit: "interrupted",
    what: "A restore from a backup was ended here before all of it was unpacked. Nothing of it is in place yet.",
    why: "Without it, this machine would become a new master, with new secrets.",
    remedy: `Run again with --from-backup FILE. Or, if it is not wanted any more: rm -r ${partialOf(stageOf(baseDir))}`,
  });
}
