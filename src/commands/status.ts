import { describe, look } from "../engine/plan.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import { findInstalledNode, twoNodes } from "../join/installed-node.ts";
import { sentenceOf } from "../join/join-run.ts";
import { prepareMaster } from "../join/prepare-master.ts";
import {
  findUnclearKeys,
  readMasterSettings,
  readSavedSettings,
  warnOfIgnored,
} from "../join/settings-source.ts";
import { assessHeartbeat } from "../pinset/heartbeat.ts";
import { assessFindings } from "../pinset/sweep/findings.ts";
import { CRON_FILES, CRON_PERIODS_MS, masterLayout } from "../settings/layout.ts";
import type { World } from "../world.ts";

/** `status`: reports the state of the node on this machine, of either kind. Changes nothing. */
export async function status(flags: { readonly baseDir?: string }, world: World): Promise<VerbExit> {
  if (world.host.system.uid() !== 0) {
    throw new OperatorError({
      exit: "preflight",
      what: "This command needs root, because the settings contain secrets.",
      remedy: "Run it with sudo.",
    });
  }
  const { answer, found, other } = await findInstalledNode(world.host, flags.baseDir);
  if (answer === "both" && other !== null)
    throw twoNodes([found, other], "Select one of them: --base-dir DIR.");
  const { kind, baseDir } = found;
  return kind === "master"
    ? await masterStatus(baseDir, world)
    : await (await import("../join/storage-report.ts")).storageStatus(baseDir, world);
}

/** Reports the state of every step, and the age of the last successful snapshot and sweep. */
async function masterStatus(baseDir: string, world: World): Promise<VerbExit> {
  const { host, reporter, version } = world;
  const layout = masterLayout(baseDir);
  const resolved = await readMasterSettings(world, layout.envFile, "none");
  const { settings } = resolved;
  warnOfIgnored(world, resolved);
  const unclear = await findUnclearKeys(world, await readSavedSettings(world, layout.envFile), "master");
  const problems = [...resolved.problems, ...unclear];
  if (problems.length > 0)
    throw new OperatorError({ exit: "settings", what: "Some settings are missing or invalid.", problems });
  const { steps } = await prepareMaster(world, {
    layout,
    settings,
    provisionWriter: false,
    imagesArchive: null,
  });
  const items = describe(await look(steps, host, new Set()));
  const now = host.clock.now();
  const [snapshot, sweep] = await Promise.all([
    host.files.readText(layout.snapshotHeartbeat),
    host.files.readText(layout.sweepHeartbeat),
  ]);
  const [snapshotCron, sweepCron] = await Promise.all(
    [CRON_FILES.snapshot, CRON_FILES.sweep].map((path) => host.files.stat(path)),
  );
  const heartbeats = {
    snapshot: assessHeartbeat(
      snapshot,
      {
        noun: "snapshot",
        command: "fula-node snapshot take",
        everyMs: CRON_PERIODS_MS.snapshot,
        scheduledAt: snapshotCron?.modifiedAt ?? null,
      },
      now,
    ),
    sweep: assessHeartbeat(
      sweep,
      {
        noun: "sweep",
        command: "fula-node sweep",
        everyMs: CRON_PERIODS_MS.sweep,
        scheduledAt: sweepCron?.modifiedAt ?? null,
      },
      now,
    ),
  };
  const { pins, nodes } = assessFindings(heartbeats.sweep.heartbeat, now);
  const found = heartbeats.sweep.heartbeat === null ? [] : [pins, nodes];
  const needsAttention = [...Object.values(heartbeats), ...found].some(({ state }) => state !== "ok");
  const pending = items.some(({ state, changes }) => state === "foreign" || changes.length > 0);
  reporter.result({
    data: { verb: "status", version, kind: "master", baseDir, items, heartbeats, pins, nodes, pending },
    lines: [
      `fula-node ${version}, master in ${layout.baseDir}`,
      ...reporter.table(items.map((item) => [item.state, item.step, sentenceOf(item)])),
      ...reporter.table([
        [heartbeats.snapshot.state, "snapshots", heartbeats.snapshot.sentence],
        [heartbeats.sweep.state, "sweeps", heartbeats.sweep.sentence],
        [pins.state, "pins", pins.sentence],
        [nodes.state, "nodes", nodes.sentence],
      ]),
      pending
        ? "Changes are pending. Run join-as-master."
        : needsAttention
          ? "Something needs attention; see above."
          : "Everything is up to date.",
    ],
  });
  return pending || needsAttention ? "pending" : "ok";
}
