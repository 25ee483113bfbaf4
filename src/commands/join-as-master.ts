import { checkBaseDir, closeJoin, type JoinFlags, runJoin } from "../join/join-run.ts";
import { prepareMaster } from "../join/prepare-master.ts";
import { resolveMaster } from "../join/resolve-master.ts";
import { MASTER_BASE_DIR, masterLayout } from "../settings/layout.ts";
import type { World } from "../world.ts";
import type { VerbExit } from "../errors.ts";

const VERB = "join-as-master";

/** Makes this box a master, or mends the master that it is; `dryRun` only tells. */
export async function joinAsMaster(flags: JoinFlags, world: World): Promise<VerbExit> {
  const baseDir = checkBaseDir(flags.baseDir ?? MASTER_BASE_DIR, MASTER_BASE_DIR);
  const layout = masterLayout(baseDir);
  const since = world.host.clock.now().toISOString();
  const lock = flags.dryRun ? null : await world.takeLock(baseDir, { pid: world.pid, verb: VERB, since });
  try {
    const { settings, provisionWriter } = await resolveMaster(flags, layout, world);
    const { steps, context } = await prepareMaster(world, {
      layout,
      settings,
      provisionWriter,
      imagesArchive: flags.images ?? null,
    });
    const consents = new Set(provisionWriter ? ["--provision-writer"] : []);
    const outcome = await runJoin(world, { steps, flags, journal: layout.journal, since, consents });
    const done = [
      `  Settings and secrets: ${layout.envFile} (keep a copy elsewhere)`,
      `  Snapshots:            ${layout.snapshotsDir}, key ${layout.signingKey} (keep a copy elsewhere)`,
      `  Look again:           ${context.nodePath} ${layout.cliCurrent}/bin/fula-node.js status`,
    ];
    return await closeJoin(world, outcome, { verb: VERB, baseDir, done });
  } finally {
    await lock?.release();
  }
}
