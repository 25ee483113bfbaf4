import { describe, look } from "../engine/plan.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import { findInstalledNode, twoNodes } from "../join/installed-node.ts";
import { prepareMaster } from "../join/prepare-master.ts";
import { readMasterSettings } from "../join/settings-source.ts";
import { sentenceOf } from "../join/join-run.ts";
import { judgeHeartbeat, parseHeartbeat } from "../pinset/heartbeat.ts";
import { masterLayout } from "../settings/layout.ts";
import type { World } from "../world.ts";

const SNAPSHOT_EVERY_MS = 6 * 3_600_000;
const SWEEP_EVERY_MS = 30 * 60_000;

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
  const { settings, problems } = await readMasterSettings(world, layout.envFile, new Map());
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
  const heartbeats = {
    snapshot: judgeHeartbeat(parseHeartbeat(snapshot), "snapshot", now, 2 * SNAPSHOT_EVERY_MS),
    sweep: judgeHeartbeat(parseHeartbeat(sweep), "sweep", now, 2 * SWEEP_EVERY_MS),
  };
  const pending = items.some(({ state, changes }) => state === "foreign" || changes.length > 0);
  reporter.result({
    data: { verb: "status", version, kind: "master", baseDir, items, heartbeats, pending },
    lines: [
      `fula-node ${version}, master in ${layout.baseDir}`,
      ...reporter.table(items.map((item) => [item.state, item.step, sentenceOf(item)])),
      ...reporter.table([
        [heartbeats.snapshot.state, "snapshots", heartbeats.snapshot.sentence],
        [heartbeats.sweep.state, "sweeps", heartbeats.sweep.sentence],
      ]),
      pending ? "Changes are pending. Run join-as-master." : "Everything is up to date.",
    ],
  });
  return pending ? "pending" : "ok";
}
