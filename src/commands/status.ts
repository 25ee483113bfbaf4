import { describe, look } from "../engine/plan.ts";
import { OperatorError } from "../errors.ts";
import type { PlanItem } from "../engine/events.ts";
import { MASTER_BASE_DIR, masterLayout } from "../model/master-layout.ts";
import { judgeHeartbeat, parseHeartbeat } from "../model/snapshot-heartbeat.ts";
import { readMasterSettings } from "./master-settings-source.ts";
import { prepareMaster } from "./prepare-master.ts";
import type { VerbExit, World } from "./world.ts";

const SNAPSHOT_EVERY_MS = 6 * 3_600_000;
const SWEEP_EVERY_MS = 30 * 60_000;

/** `status`: every thing with its state, and how old the last good snapshot and sweep are. Changes nothing. */
export async function status(flags: { readonly baseDir?: string }, world: World): Promise<VerbExit> {
  const { host, reporter } = world;
  const layout = masterLayout(flags.baseDir ?? MASTER_BASE_DIR);
  if (host.system.uid() !== 0) {
    throw new OperatorError({
      exit: "preflight",
      what: "This needs root: the settings hold secrets.",
      remedy: "Run it with sudo.",
    });
  }
  const { settings, problems } = await readMasterSettings(world, layout.envFile, new Map());
  if (problems.length > 0)
    throw new OperatorError({ exit: "settings", what: "The settings are not as they must be.", problems });
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
    data: { verb: "status", version: world.version, baseDir: layout.baseDir, items, heartbeats, pending },
    lines: [
      `fula-node ${world.version}, master in ${layout.baseDir}`,
      ...reporter.table(items.map((item) => [item.state, item.step, sentenceOf(item)])),
      ...reporter.table([
        [heartbeats.snapshot.state, "snapshots", heartbeats.snapshot.sentence],
        [heartbeats.sweep.state, "sweeps", heartbeats.sweep.sentence],
      ]),
      pending ? "Something is to be done: run join-as-master." : "All is as wished.",
    ],
  });
  return pending ? "pending" : "ok";
}

function sentenceOf({ state, why, drift, changes, evidence }: PlanItem): string {
  if (state === "foreign") return why ?? "";
  if (state === "drifted") return drift.join("; ");
  if (state === "absent") return changes.map(({ summary }) => summary).join("; ");
  return Object.entries(evidence)
    .map(([name, seen]) => `${name}: ${seen}`)
    .slice(0, 4)
    .join("; ")
    .replaceAll(/\b([0-9a-f]{12})[0-9a-f]{52}\b/g, "$1");
}
