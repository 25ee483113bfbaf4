import { OperatorError, type VerbExit } from "../errors.ts";
import { requireRoot, resolveBaseDir } from "../join/base-dir.ts";
import {
  databaseOf,
  readInstalledMaster,
  refuseUnfinishedRestore,
  refuseUnfinishedRotation,
} from "../join/installed-node.ts";
import { closeJoin, runJoin, startStopwatch } from "../join/join-run.ts";
import { refuseOtherBaseDir, takeLocks } from "../join/one-node.ts";
import {
  findFormer,
  formerCron,
  formerJoin,
  formerProgram,
  keepImages,
  type Rollback,
} from "../join/rollback/rollback.ts";
import { formerSchema } from "../join/rollback/former-schema.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import {
  baseDirFlag,
  CRON_FILES,
  lockNames,
  MASTER_BASE_DIR,
  masterLayout,
  NAMES,
  STORAGE_BASE_DIR,
  storageLayout,
} from "../settings/layout.ts";
import { readEnvFile, type NodeLayout } from "../settings/context.ts";
import { savedValue } from "../settings/settings.ts";
import { STORAGE_SETTINGS } from "../settings/storage.ts";
import type { World } from "../world.ts";

/** The flags of a rollback, as commander returns them. */
interface RollbackFlags {
  readonly dryRun: boolean;
  readonly yes: boolean;
  readonly baseDir?: string;
  readonly ignore: readonly string[];
  /** False with --no-register, which only a storage node has. */
  readonly register?: boolean;
}

/** `--rollback` of a join: puts the version before back. `dryRun` only prints the plan. */
export async function rollBack(
  verb: Rollback["verb"],
  flags: RollbackFlags,
  given: World,
): Promise<VerbExit> {
  const isMaster = verb === "join-as-master";
  const usualDir = isMaster ? MASTER_BASE_DIR : STORAGE_BASE_DIR;
  const baseDir = await resolveBaseDir(given.host, flags.baseDir, usualDir);
  const watch = startStopwatch(given);
  const world = { ...given, questions: watch.questions };
  const { host, version, nodePath } = world;
  requireRoot(host, "it changes what runs on this machine");
  if (!flags.dryRun && !flags.yes && world.questions === null)
    throw new OperatorError({
      exit: "preflight",
      what: "A rollback removes tables of the newer version, and there is no terminal to ask on.",
      remedy: `See what it removes: fula-node ${verb} --rollback --dry-run. Then run it with --yes.`,
    });
  const layout = storageLayout(baseDir);
  const since = host.clock.now().toISOString();
  const { node, machine } = lockNames(baseDir);
  const lock = flags.dryRun ? null : await takeLocks(world, [node, machine], { pid: world.pid, verb, since });
  const held = { lock };
  const unlock = async (): Promise<void> => {
    const { lock: last } = held;
    held.lock = null;
    await last?.release();
  };
  try {
    await refuseOtherBaseDir(host, isMaster ? "master" : "storage-node", baseDir);
    if (isMaster) await refuseUnfinishedRestore(host, masterLayout(baseDir));
    if (isMaster) await refuseUnfinishedRotation(host, masterLayout(baseDir));
    const former = await findFormer(host, { verb, layout, version, nodePath });
    const master = isMaster ? await readInstalledMaster(world, baseDir) : null;
    const rollback: Rollback = {
      verb,
      layout,
      version,
      former,
      nodePath,
      usualDir,
      unlock,
      database:
        master === null ? null : { target: databaseOf(master), masterId: master.values("MASTER_ID") ?? null },
      services: isMaster ? [NAMES.pinningApi, NAMES.webui] : [],
      keep: [
        ...(master === null
          ? await keepOfNode(world, layout, flags)
          : keepImages(MASTER_SETTINGS, master.values)),
        ...flags.ignore.flatMap((check) => ["--ignore", check]),
      ],
    };
    const outcome = await runJoin(world, {
      verb: `${verb} --rollback to ${former}`,
      baseDir,
      flags: { ...flags, set: [], adopt: [], ignore: [] },
      journal: layout.journal,
      since,
      prepare: () =>
        Promise.resolve({
          steps: [
            formerSchema(rollback),
            formerCron(rollback),
            formerProgram(rollback),
            formerJoin(rollback),
          ],
          consents: new Set<string>(),
        }),
    });
    const here = baseDirFlag(baseDir, usualDir);
    const hasDrills = outcome.changes.some(({ change }) => change.summary.endsWith(CRON_FILES.drill));
    return await closeJoin(world, outcome, {
      verb,
      baseDir,
      durationMs: watch.elapsedMs(),
      next: [
        ["See how it stands:", `fula-node status${here}`],
        ["To upgrade again:", `npx fula-node@${version} ${verb}${here}`],
        ...(hasDrills
          ? ([["Then, for drills every week:", `fula-node drill --schedule${here}`]] as const)
          : []),
      ],
    });
  } finally {
    await unlock();
  }
}

async function keepOfNode(
  { host }: World,
  { baseDir, envFile }: NodeLayout,
  { register }: RollbackFlags,
): Promise<readonly string[]> {
  const file = await readEnvFile(host, envFile);
  // One that was joined with --no-register has announced nothing.
  const isRegistered =
    register !== false && (await host.files.stat(storageLayout(baseDir).announced)) !== null;
  return [
    ...keepImages(STORAGE_SETTINGS, (key) => savedValue(file, key)),
    ...(isRegistered ? [] : ["--no-register"]),
  ];
}
