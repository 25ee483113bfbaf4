import { markPins, readStage, type Stage } from "../../backup/restore-stage.ts";
import { PLACES } from "../../backup/node-files.ts";
import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { EXIT_CODES } from "../../errors.ts";
import { type MasterContext, readValues } from "../../settings/context.ts";
import { isDatabaseElsewhere } from "../../settings/postgres-target.ts";

type RestorePins = Change & {
  readonly kind: "restore-pins" | "leave-pins";
  readonly runs: readonly string[];
};

const DEADLINE_MS = 24 * 3_600_000;

interface Seen {
  readonly stage: Stage | null;
  /** True if the database is not that of the backup, but goes on elsewhere. */
  readonly isNewer: boolean;
}

/**
 * The pinset of a backup, from its newest snapshot. A pin that wants more copies than there are peers is refused until storage nodes
 * come back, and they need this master for that: so the join goes on, and each later one tries again.
 *
 * A database on another machine is newer than the snapshot: what its users deleted since then must not come back. The other peers of
 * the cluster have the pinset.
 */
export function restoredPins(context: MasterContext): StepSpec<Seen, RestorePins> {
  const { layout, nodePath } = context;
  const { baseDir, snapshotsDir, cliCurrent } = layout;
  // Of this run.
  let isTried = false;
  return {
    id: "restored-pins",
    title: "pins of the backup",
    touches: "Pins again what the newest snapshot of a backup has.",
    // Only now is it known what of the backup is still needed.
    reprobeAfter: true,

    async probe(host): Promise<Finding<Seen>> {
      const stage = await readStage(host.files, baseDir);
      if (stage === null)
        return { state: "ours", seen: { stage, isNewer: false }, evidence: { restore: "none goes on" } };
      const seen = { stage, isNewer: isDatabaseElsewhere(await readValues(host, context)) };
      const evidence = {
        snapshot: stage.manifest.snapshots[0] ?? "none",
        pins: stage.hasPins ? "are there" : isTried ? "are not all there yet" : "are to come",
      };
      if (stage.hasPins || isTried) return { state: "ours", seen, evidence };
      return { state: "drifted", seen, drift: ["not all pins of the backup are there"], evidence };
    },

    plan({ state, seen: { stage, isNewer } }) {
      if (state === "ours" || stage === null) return [];
      if (isNewer) {
        const summary = "leave the pins to the other peers: the database is newer than the backup";
        return [{ kind: "leave-pins", summary, runs: [] }];
      }
      const [snapshot = ""] = stage.manifest.snapshots;
      // Retention may remove the one in place.
      const own = `${stage.directory}/${PLACES.base}${snapshotsDir.slice(baseDir.length)}`;
      const program = [nodePath, `${cliCurrent}/bin/fula-node.js`, "snapshot", "restore"];
      const runs = [...program, `${own}/${snapshot}.manifest.json`, "--base-dir", baseDir];
      return [{ kind: "restore-pins", summary: `pin again what the snapshot ${snapshot} has`, runs }];
    },

    async apply({ kind, runs }, host, report) {
      const accept = [EXIT_CODES.interrupted];
      const exitCode =
        kind === "leave-pins"
          ? 0
          : await host.system.runCommand(runs, { timeoutMs: DEADLINE_MS, onLine: report, accept });
      isTried = true;
      if (exitCode !== 0) {
        report("some pins are not there yet: a later run tries again");
        return;
      }
      const stage = await readStage(host.files, baseDir);
      if (stage !== null) await markPins(stage, host.files);
    },

    // What is still missing is said at the end of the join, and by `status`.
    verify: () => Promise.resolve(),
  };
}
