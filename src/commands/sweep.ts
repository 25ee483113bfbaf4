import type { VerbExit } from "../errors.ts";
import { databaseOf, openOwnCluster, readInstalledMaster } from "../join/installed-node.ts";
import { nodeSourcesOf } from "../join/node-sources.ts";
import { refuseRemoved } from "../join/master-database.ts";
import { readSearched } from "../pinning/searched.ts";
import { sweep } from "../pinset/sweep/sweep.ts";
import { CRON_PERIODS_MS, lockNames } from "../settings/layout.ts";
import { hang } from "../ui/text.ts";
import type { World } from "../world.ts";

/** Ends a run that hangs, so that it does not hold the lock for ever. */
const DEADLINE_MS = 3_600_000;

/**
 * `sweep`: reports the pins that have too few copies, raises the alarm, and makes the peers try again. Throws after the
 * result if a check failed, or if ALERT_COMMAND did not take the alarm.
 */
export async function sweepPins(
  flags: { readonly baseDir?: string; readonly strict: boolean; readonly forget: readonly string[] },
  world: World,
): Promise<VerbExit> {
  const { host, reporter } = world;
  const master = await readInstalledMaster(world, flags.baseDir);
  await refuseRemoved(world.host, master);
  const { layout, values } = master;
  const lock = await world.takeLock(lockNames(layout.baseDir).sweep, {
    pid: world.pid,
    verb: "sweep",
    since: host.clock.now().toISOString(),
  });
  // A line of cron's log stays one line.
  const fitted = (line: string) => (world.questions === null ? [line] : hang("", line, 2));
  try {
    await world.rotateLog(layout.sweepLog);
    const channels = await world.openChannels({
      log: layout.alertLog,
      command: values("ALERT_COMMAND"),
      pool: values("CLUSTERNAME") ?? "",
    });
    const {
      failure,
      facts: _facts,
      ...result
    } = await sweep({
      cluster: openOwnCluster(world, master, { deadlineMs: DEADLINE_MS }),
      clock: host.clock,
      files: host.files,
      channels,
      heartbeat: {
        files: host.files,
        clock: host.clock,
        path: layout.sweepHeartbeat,
        channels,
        watched: { path: layout.snapshotHeartbeat, everyMs: CRON_PERIODS_MS.snapshot },
      },
      nodes: nodeSourcesOf(world, master),
      readSearched: async () => {
        const target = databaseOf(master);
        return readSearched({ query: (sql, given) => host.postgres.query(target, sql, given) });
      },
      forget: flags.forget,
      floor: Number(values("REPL_MIN")),
      strict: flags.strict,
      workspace: await world.openWorkspace(),
      report: (line) => {
        for (const part of fitted(line)) reporter.note(part);
      },
    });
    reporter.result({
      data: { verb: "sweep", ...result },
      lines: fitted(`${host.clock.now().toISOString()} ${result.summary}`),
    });
    if (failure === null) return result.exit === "pending" ? "pending" : "ok";
    if (result.exit !== "pending") throw failure;
    reporter.listen({ type: "warning", text: failure.what });
    return "pending";
  } finally {
    await lock.release();
  }
}
