import { checkBaseDir, closeJoin, runJoin, type StorageFlags } from "../join/join-run.ts";
import { prepareStorageNode } from "../join/prepare-storage.ts";
import { resolveStorageNode } from "../join/resolve-storage.ts";
import { STORAGE_BASE_DIR, storageLayout } from "../settings/layout.ts";
import type { World } from "../world.ts";
import type { VerbExit } from "../errors.ts";

const VERB = "join-as-storage-node";

/** Makes this box a storage node, or mends the one that it is; `dryRun` only tells. */
export async function joinAsStorageNode(flags: StorageFlags, world: World): Promise<VerbExit> {
  const baseDir = checkBaseDir(flags.baseDir ?? STORAGE_BASE_DIR, STORAGE_BASE_DIR);
  const layout = storageLayout(baseDir);
  const since = world.host.clock.now().toISOString();
  const lock = flags.dryRun ? null : await world.takeLock(baseDir, { pid: world.pid, verb: VERB, since });
  try {
    const settings = await resolveStorageNode(flags, layout, world);
    const steps = await prepareStorageNode(world, {
      layout,
      settings,
      imagesArchive: flags.images ?? null,
      register: flags.register,
    });
    const outcome = await runJoin(world, {
      steps,
      flags,
      journal: layout.journal,
      since,
      consents: new Set(),
    });
    const done = [
      `  Settings:      ${layout.envFile}`,
      `  Blocks:        sent to port ${settings.get("INGEST_PORT")?.value ?? ""}, PUT /v0/block?cid=CID`,
      `  Look again:    run ${VERB} again; it changes nothing that is as it should be`,
    ];
    return await closeJoin(world, outcome, { verb: VERB, baseDir, done });
  } finally {
    await lock?.release();
  }
}
