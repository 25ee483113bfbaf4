import { lockNames } from "../settings/lock-names.ts";
import { takeSnapshot } from "../pinset/snapshot/take.ts";
import { clusterIdOf, openOwnCluster, readInstalledMaster } from "../join/installed-master.ts";
import type { VerbExit, World } from "./world.ts";

/** A run that hangs must not keep the lock until somebody looks. */
const DEADLINE_MS = 3 * 3_600_000;

/** `snapshot take`: a signed snapshot of the pinset, as cron takes it. */
export async function snapshotTake(flags: { readonly baseDir?: string }, world: World): Promise<VerbExit> {
  const { host, reporter } = world;
  const master = await readInstalledMaster(world, flags.baseDir);
  const { layout, values } = master;
  const lock = await world.takeLock(lockNames(layout.baseDir).snapshot, {
    pid: world.pid,
    verb: "snapshot take",
    since: host.clock.now().toISOString(),
  });
  try {
    const result = await takeSnapshot({
      cluster: openOwnCluster(world, master, { deadlineMs: DEADLINE_MS }),
      store: world.openSnapshots(layout.snapshotsDir),
      key: await world.readSigningKey(layout.signingKey),
      clock: host.clock,
      alerts: world.openAlerts(layout.alertLog),
      heartbeat: { files: host.files, clock: host.clock, path: layout.snapshotHeartbeat },
      clusterName: values("CLUSTERNAME") ?? "",
      clusterId: clusterIdOf(world, master),
      keep: Number(values("KEEP")),
      dropShare: Number(values("SNAPSHOT_DROP_PERCENT")) / 100,
      toolVersion: world.version,
      report: (line) => reporter.note(line),
    });
    reporter.result({
      data: { verb: "snapshot take", ...result },
      lines: [`${host.clock.now().toISOString()} ${result.summary}`],
    });
    return result.exit === "pending" ? "pending" : "ok";
  } finally {
    await lock.release();
  }
}
