import { OperatorError, type VerbExit } from "../errors.ts";
import { clusterIdOf, openOwnCluster, readInstalledMaster } from "../join/installed-node.ts";
import { type RestoreResult, restoreSnapshot } from "../pinset/restore/restore.ts";
import { lockNames } from "../settings/layout.ts";
import { wrap } from "../ui/text.ts";
import type { World } from "../world.ts";
import { openVerified, type SnapshotFlags } from "./snapshot.ts";
import { countOf } from "../units.ts";

/** The flags of `snapshot restore`. */
export interface RestoreFlags extends SnapshotFlags {
  readonly dryRun: boolean;
  readonly options: boolean;
  readonly fromOtherCluster: boolean;
  readonly concurrency: string;
}

/** `snapshot restore FILE`: pins again what the snapshot has and the cluster lacks. Throws (`interrupted`) if something is still missing. */
export async function snapshotRestore(given: string, flags: RestoreFlags, world: World): Promise<VerbExit> {
  const { host, reporter } = world;
  const concurrency = Number(flags.concurrency);
  if (!/^\d{1,3}$/.test(flags.concurrency) || concurrency < 1) {
    throw new OperatorError({
      exit: "usage",
      what: `--concurrency is ${JSON.stringify(flags.concurrency)}; it must be a number from 1 to 999.`,
    });
  }
  const master = await readInstalledMaster(world, flags.baseDir);
  const { layout, values } = master;
  const snapshot = await openVerified(world, flags, given);
  const lock = await world.takeLock(lockNames(layout.baseDir).restore, {
    pid: world.pid,
    verb: "snapshot restore",
    since: host.clock.now().toISOString(),
  });
  const cluster = openOwnCluster(world, master, { connections: concurrency });
  try {
    const result = await restoreSnapshot({
      snapshot,
      cluster,
      workspace: await world.openWorkspace(),
      clock: host.clock,
      clusterId: clusterIdOf(world, master),
      clusterName: values("CLUSTERNAME") ?? "",
      fromOtherCluster: flags.fromOtherCluster,
      repairOptions: flags.options,
      dryRun: flags.dryRun,
      concurrency,
      notes: { files: host.files, directory: layout.restoreDir },
      report: (line) => reporter.note(line),
      progress: (line) => reporter.progress(line),
    });
    reporter.result({ data: { verb: "snapshot restore", ...result }, lines: linesOf(result) });
    if (result.exit === "interrupted") throw incomplete(result);
    return result.exit;
  } finally {
    cluster.close();
    await lock.release();
  }
}

function linesOf({ summary, failedFile, lostFile }: RestoreResult): readonly string[] {
  return [
    ...wrap(`${summary}.`),
    ...(failedFile === null ? [] : ["Pins that failed, with the reason:", `  ${failedFile}`]),
    ...(lostFile === null ? [] : ["Pins that cannot be restored as they were:", `  ${lostFile}`]),
  ];
}

function incomplete({ snapshot, run, after, failedFile }: RestoreResult): OperatorError {
  return new OperatorError({
    exit: "interrupted",
    what: `${after?.restorable ?? 0} pins of ${snapshot} are still missing or different in the cluster.`,
    why:
      failedFile === null
        ? "The cluster accepted them, but does not list them."
        : `${run?.failed ?? 0} pins failed. ${failedFile} lists them with the reason.`,
    remedy: "Correct the cause, then run the same command again. It restores what is missing.",
    changed: `${countOf(run?.pinned ?? 0, "pin")} added or updated; none was removed.`,
  });
}
