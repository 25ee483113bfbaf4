import type { VerbExit } from "../errors.ts";
import { resolveBaseDir } from "../join/base-dir.ts";
import {
  closeJoin,
  keepWarnings,
  type NextStep,
  runJoin,
  startStopwatch,
  type StorageFlags,
} from "../join/join-run.ts";
import { refuseOtherBaseDir, takeLocks } from "../join/one-node.ts";
import { prepareStorageNode } from "../join/prepare-storage.ts";
import { findApiProblem, resolveStorageNode } from "../join/resolve-storage.ts";
import {
  baseDirFlag,
  lockNames,
  STORAGE_BASE_DIR,
  STORAGE_NAMES,
  storageLayout,
} from "../settings/layout.ts";
import type { Settings } from "../settings/settings.ts";
import type { World } from "../world.ts";

const VERB = "join-as-storage-node";

/** Makes this machine a storage node, or repairs the storage node on it. `dryRun` only prints the plan. */
export async function joinAsStorageNode(flags: StorageFlags, given: World): Promise<VerbExit> {
  const baseDir = await resolveBaseDir(given.host, flags.baseDir, STORAGE_BASE_DIR);
  const layout = storageLayout(baseDir);
  const warnings = keepWarnings(given.reporter);
  const watch = startStopwatch(given);
  const world = { ...given, reporter: warnings.reporter, questions: watch.questions };
  const since = world.host.clock.now().toISOString();
  // Without root nothing is changed either: the preflight refuses it, and lists everything else that is wrong.
  const isReading = flags.dryRun || world.host.system.uid() !== 0;
  const { node, machine } = lockNames(baseDir);
  const holder = { pid: world.pid, verb: VERB, since };
  const lock = isReading ? null : await takeLocks(world, [node, machine], holder);
  try {
    if (world.host.system.uid() === 0) await refuseOtherBaseDir(world.host, "storage-node", baseDir);
    let settings = await resolveStorageNode(flags, layout, world);
    const outcome = await runJoin(world, {
      verb: VERB,
      baseDir,
      flags,
      journal: layout.journal,
      since,
      prepare: async (startedDocker) => {
        if (startedDocker) settings = await resolveStorageNode(flags, layout, world);
        const steps = await prepareStorageNode(world, {
          layout,
          settings,
          imagesArchive: flags.images ?? null,
          register: flags.register,
          adopt: flags.adopt,
        });
        return { steps, consents: new Set() };
      },
    });
    const left = flags.dryRun ? [] : await findLeft(world, settings, flags.register);
    const here = baseDirFlag(baseDir, STORAGE_BASE_DIR);
    const next: readonly NextStep[] = [
      [
        "Keep a copy off this box:",
        `${layout.envFile}, identity.json of the volume ${STORAGE_NAMES.clusterVolume}`,
      ],
      [
        "Send blocks to it:",
        `port ${settings.get("INGEST_PORT")?.value ?? ""}, PUT /v0/block?cid=CID (raw, BLAKE3)`,
      ],
      ["See how it stands:", `fula-node status${here}`],
      ["fula-node is installed as:", `node ${layout.cliCurrent}/bin/fula-node.js`],
    ];
    return await closeJoin(world, outcome, {
      verb: VERB,
      baseDir,
      durationMs: watch.elapsedMs(),
      next,
      left,
    });
  } finally {
    warnings.release();
    await lock?.release();
  }
}

/**
 * What is left to do for the operator, a line each. With a registered name, the storage API has just answered. Without one, nothing
 * else asks it, and an ingest without it refuses every upload.
 */
async function findLeft(
  { host }: Pick<World, "host">,
  settings: Settings,
  isRegistered: boolean,
): Promise<readonly string[]> {
  if (isRegistered) return [];
  const problem = await findApiProblem(host, settings);
  return problem === null ? [] : [`Left to do: ${problem} (fula-node status).`];
}
