import type { VerbExit } from "../errors.ts";
import { openOwnCluster, readInstalledMaster } from "../join/installed-node.ts";
import { sweep } from "../pinset/sweep/sweep.ts";
import { lockNames } from "../settings/layout.ts";
import type { World } from "../world.ts";

/** Ends a run that hangs, so that it does not hold the lock for ever. */
const DEADLINE_MS = 3_600_000;

/** `sweep`: reports the pins that have too few copies, and makes the peers try again. */
export async function sweepPins(
  flags: { readonly baseDir?: string; readonly strict: boolean; readonly forget: readonly string[] },
  world: World,
): Promise<VerbExit> {
  const { host, reporter } = world;
  const master = await readInstalledMaster(world, flags.baseDir);
  const { layout, values } = master;
  const lock = await world.takeLock(lockNames(layout.baseDir).sweep, {
    pid: world.pid,
    verb: "sweep",
    since: host.clock.now().toISOString(),
  });
  try {
    const result = await sweep({
      cluster: openOwnCluster(world, master, { deadlineMs: DEADLINE_MS }),
      clock: host.clock,
      files: host.files,
      alerts: world.openAlerts(layout.alertLog),
      heartbeat: { files: host.files, clock: host.clock, path: layout.sweepHeartbeat },
      nodesPath: layout.knownNodes,
      forget: flags.forget,
      fallbackMin: Number(values("REPL_MIN")),
      strict: flags.strict,
      workspace: await world.openWorkspace(),
      report: (line) => reporter.note(line),
    });
    reporter.result({
      data: { verb: "sweep", ...result },
      lines: [`${host.clock.now().toISOString()} ${result.summary}`],
    });
    return result.exit === "pending" ? "pending" : "ok";
  } finally {
    await lock.release();
  }
}
