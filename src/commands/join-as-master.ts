import { readWriterPeer } from "../cluster/writer.ts";
import { readStage, type Stage } from "../backup/restore-stage.ts";
import { findStale, parseKnown } from "../edge/known.ts";
import { lookAtEdge } from "../edge/look.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import { consentsOfReplace } from "../join/adopted-services.ts";
import { resolveBaseDir } from "../join/base-dir.ts";
import { beginRestore, refuseOtherMaster } from "../join/from-backup/begin-restore.ts";
import { bindMasterInvite } from "../federation/invite-records.ts";
import type { MasterInvite } from "../federation/master-invite.ts";
import { readInstalledMaster, refuseUnfinishedRotation } from "../join/installed-node.ts";
import {
  closeJoin,
  type JoinFlags,
  keepWarnings,
  type NextStep,
  runJoin,
  startStopwatch,
} from "../join/join-run.ts";
import { withMasterDatabase } from "../join/master-database.ts";
import { refuseOtherBaseDir, takeLocks } from "../join/one-node.ts";
import { prepareMaster } from "../join/prepare-master.ts";
import { resolveMaster } from "../join/resolve-master.ts";
import { edgeOf } from "../settings/edge.ts";
import {
  baseDirFlag,
  lockNames,
  MASTER_BASE_DIR,
  masterLayout,
  type MasterLayout,
  NAMES,
  WRITER_IDENTITY,
} from "../settings/layout.ts";
import { backupsOf } from "../settings/master.ts";
import { isDatabaseElsewhere } from "../settings/postgres-target.ts";
import type { Settings } from "../settings/settings.ts";
import { upgradeBackup, type UpgradeBackup, WITHOUT_BACKUP } from "../steps/master/upgrade-backup.ts";
import type { World } from "../world.ts";

const VERB = "join-as-master";
const NO_BACKUP_HAS = "No backup has, keep a copy:";
const EDGE_DATA = `the volume ${NAMES.edgeVolume}`;

/** Makes this machine a master, or repairs the master on it. `dryRun` only prints the plan. */
export async function joinAsMaster(asked: JoinFlags, given: World): Promise<VerbExit> {
  const baseDir = await resolveBaseDir(given.host, asked.baseDir, MASTER_BASE_DIR);
  const layout = masterLayout(baseDir);
  const warnings = keepWarnings(given.reporter);
  const watch = startStopwatch(given);
  const world = { ...given, reporter: warnings.reporter, questions: watch.questions };
  const consents = consentsOfReplace(asked.replace);
  const since = world.host.clock.now().toISOString();
  // Without root nothing is changed either: the preflight refuses it, and lists everything else that is wrong.
  const isReading = asked.dryRun || world.host.system.uid() !== 0;
  const { node, machine } = lockNames(baseDir);
  const holder = { pid: world.pid, verb: VERB, since };
  const lock = isReading ? null : await takeLocks(world, [node, machine], holder);
  let isPlaced = false;
  try {
    if (world.host.system.uid() === 0) await refuseOtherBaseDir(world.host, "master", baseDir);
    await refuseUnfinishedRotation(world.host, layout);
    const restoring = await beginRestore(world, { flags: asked, layout, since });
    const flags = restoring?.flags ?? asked;
    const first = restoring?.outcome ?? null;
    isPlaced = (first?.changes.length ?? 0) > 0;
    if (first?.dryRun === true)
      return await closeJoin(world, first, { verb: VERB, baseDir, durationMs: watch.elapsedMs(), next: [] });
    let desired = await resolveMaster(flags, layout, world);
    if (restoring !== null && restoring.stage !== null)
      refuseOtherMaster(restoring.stage, (key) => desired.settings.get(key)?.value);
    const { journal, cliCurrent } = layout;
    const outcome = await runJoin(world, {
      verb: VERB,
      baseDir,
      flags,
      journal,
      since,
      prepare: async (startedDocker) => {
        if (startedDocker) desired = await resolveMaster(flags, layout, world);
        const { settings, provisionWriter } = desired;
        const { steps, context } = await prepareMaster(world, {
          layout,
          settings,
          provisionWriter,
          imagesArchive: flags.images ?? null,
          adopt: flags.adopt,
        });
        const backup = upgradeBackupOf(world, layout, settings, flags.withoutBackup === true);
        return {
          steps: steps.toSpliced(
            steps.findIndex(({ id }) => id === "cli"),
            0,
            upgradeBackup(context, backup),
          ),
          consents: new Set([
            ...(provisionWriter ? ["--provision-writer"] : []),
            ...(flags.withoutBackup === true ? [WITHOUT_BACKUP] : []),
            ...consents,
          ]),
        };
      },
    });
    const here = baseDirFlag(baseDir);
    const trust =
      flags.dryRun || desired.invite === null ? [] : await endInvited(world, baseDir, desired.invite);
    const valueOf = (key: string) => desired.settings.get(key)?.value;
    const edge = edgeOf(valueOf);
    const isRestored = restoring !== null && restoring.stage !== null;
    const left = flags.dryRun
      ? []
      : [
          ...(isRestored
            ? await leftAfterRestore(world.host, layout, restoring.stage, isDatabaseElsewhere(valueOf))
            : []),
          ...(await findLeft(world, layout, desired.settings)),
        ];
    const isKnown = desired.settings.has("STORAGE_API_URL") || desired.settings.has("PUBLIC_HOST");
    const url = isKnown ? "" : " --storage-api-url URL";
    const stage = restoring?.stage ?? null;
    const next: readonly NextStep[] = [
      ...trust,
      ...(stage === null
        ? []
        : ([
            [
              isDatabaseElsewhere(valueOf)
                ? "Its database is as it was; its files are of:"
                : "Lost is what came after the backup of:",
              stage.manifest.created_at,
            ],
          ] as const)),
      ...keepsOf(desired.settings, here),
      ...(edge === null ? [] : ([[NO_BACKUP_HAS, EDGE_DATA]] as const)),
      ...(flags.dryRun || (await isWriterOurs(world, desired.settings))
        ? []
        : ([[NO_BACKUP_HAS, `${WRITER_IDENTITY} and kubo/config of the writer`]] as const)),
      // After a restore, the nodes are there already.
      [
        stage === null ? "Let others join:" : "If this machine has another address:",
        `fula-node invite create --name NAME${url}${here}`,
      ],
      ["See how it stands:", `fula-node status${here}`],
      ["fula-node is installed as:", `node ${cliCurrent}/bin/fula-node.js`],
    ];
    const whole =
      first === null
        ? outcome
        : {
            ...outcome,
            plan: [...first.plan, ...outcome.plan],
            changes: [...first.changes, ...outcome.changes],
          };
    return await closeJoin(world, whole, {
      verb: VERB,
      baseDir,
      durationMs: watch.elapsedMs(),
      next,
      left,
    });
  } catch (thrown) {
    if (!isPlaced || !(thrown instanceof OperatorError) || thrown.changed !== undefined) throw thrown;
    throw thrown.withChanged(
      "the files of the backup are in place. Running again is safe and continues from here.",
    );
  } finally {
    warnings.release();
    await lock?.release();
  }
}

/** Where this run says that backups go: the version that is installed may not know backups. */
function upgradeBackupOf(
  world: World,
  layout: MasterLayout,
  settings: Settings,
  isWithout: boolean,
): UpgradeBackup {
  const desired = (key: string) => settings.get(key)?.value;
  const backups = backupsOf(desired);
  if (backups === null || isWithout)
    return { directory: null, make: () => Promise.reject(new TypeError("no backup is configured")) };
  const keep = Number(settings.get("BACKUP_KEEP")?.value);
  return {
    directory: backups.directory,
    make: async () =>
      (await import("./backup.ts")).backUpRegularly(world, layout, { ...backups, keep, desired }),
  };
}

/** Marks the invite as used by this master. Returns what is to be done on the other one. */
async function endInvited(world: World, baseDir: string, invite: MasterInvite): Promise<readonly NextStep[]> {
  const master = await readInstalledMaster(world, baseDir);
  const masterId = master.values("MASTER_ID");
  if (masterId !== undefined) {
    world.reporter.listen({ type: "change-started", step: "invite", summary: "mark the invite as used" });
    await withMasterDatabase(world, master, "invite", (database) =>
      bindMasterInvite(database, { pool: invite.clusterName, id: invite.id, masterId }),
    );
  }
  const peer = await readWriterPeer(world.host, master.values);
  if (peer === null) return [];
  return [["On every other master, to trust this one:", `fula-node trust add ${peer.id}`]];
}

/**
 * An edge can work, and still be of no use to others: a staging CA, a name that nobody finds, nodes with its old address. And what
 * this run took as the first snapshot does not bring earlier ones back.
 * The run has verified it. Returns what is left to do, a line each.
 */
async function findLeft(
  world: Pick<World, "host" | "reporter" | "openSnapshots" | "readVerifyingKey">,
  layout: MasterLayout,
  settings: Settings,
): Promise<readonly string[]> {
  const { host, reporter } = world;
  const values = (key: string) => settings.get(key)?.value;
  const edge = edgeOf(values);
  const known = parseKnown(await host.files.readText(layout.edgeKnown));
  const stale = await findStale(host, known, values);
  const left = [
    ...(await findLost(world, layout)),
    ...(stale === null ? [] : [`Left to do: ${stale.short} (fula-node status).`]),
  ];
  if (edge === null) return left;
  const { state, sentence, todo } = await lookAtEdge(host, edge);
  if (state === "ok") return left;
  const text = `The edge of this master: ${sentence}.${todo === null ? "" : ` What to do: ${todo}.`}`;
  reporter.listen({ type: "warning", text });
  return [...left, "Left to do: what the warning above says of the edge."];
}

/** What is wrong with the snapshots, as `status` shows it. A master that remembers none can't have lost one. */
async function findLost(
  world: Pick<World, "host" | "openSnapshots" | "readVerifyingKey">,
  layout: MasterLayout,
): Promise<readonly string[]> {
  if ((await world.host.files.stat(layout.snapshotMemory)) === null) return [];
  const { judgeStored, readHeartbeats } = await import("../status/pinset-parts.ts");
  const { snapshot } = await readHeartbeats(world, layout);
  const { state, sentence } = await judgeStored(world, layout, snapshot);
  return state === "ok" ? [] : [`Left to do: the snapshots: ${sentence} (fula-node status).`];
}

/** The pins are asked for again. Whether anybody has their content is another question. */
async function leftAfterRestore(
  { files }: World["host"],
  { baseDir, restoreDir, snapshotsDir }: MasterLayout,
  { manifest: { snapshots } }: Stage,
  isDatabaseNewer: boolean,
): Promise<readonly string[]> {
  const [newest] = snapshots;
  const here = baseDirFlag(baseDir);
  if (newest === undefined)
    return ["Left to do: the backup has no snapshot of the pinset, so no pin came back."];
  if (isDatabaseNewer)
    return [
      "Left to do: the pins come from the other peers, once they are back.",
      "See what is missing then:",
      `fula-node snapshot restore ${snapshotsDir}/${newest}.manifest.json --dry-run${here}`,
    ];
  const lost = `${restoreDir}/${newest}.not-restorable.ndjson`;
  const notPinned =
    (await files.stat(lost)) === null
      ? []
      : ["Left to do: some pins can't be made again as they were. They are in:", lost];
  if ((await readStage(files, baseDir)) === null)
    return [...notPinned, `Left to do: look whether the nodes have what is pinned (fula-node sweep${here}).`];
  return [
    ...notPinned,
    "Left to do: not all pins came back. Some need more nodes than there are now.",
    "Bring storage nodes back, then run this again: it pins what is missing.",
  ];
}

/** How what nobody can make again gets off this machine. */
function keepsOf(settings: Settings, here: string): readonly NextStep[] {
  const backups = backupsOf((key) => settings.get(key)?.value);
  if (backups !== null) return [["Backed up every night to:", backups.directory]];
  return [["Keep a copy off this box:", `fula-node backup create --to DIR --recipient age1...${here}`]];
}

/** True if a backup finds who the writer is. A writer that fula-node did not create has that somewhere else. */
async function isWriterOurs({ host }: Pick<World, "host">, settings: Settings): Promise<boolean> {
  return (await host.files.stat(`${settings.get("WRITER_DIR")?.value ?? ""}/${WRITER_IDENTITY}`)) !== null;
}
