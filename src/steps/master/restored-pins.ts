import { markPins, readStage, type Stage } from "../../backup/restore-stage.ts";
import { PLACES } from "../../backup/node-files.ts";
import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { EXIT_CODES } from "../../errors.ts";
import type { MasterContext } from "../../settings/context.ts";

type RestorePins = Change & { readonly kind: "restore-pins"; readonly runs: readonly string[] };

const DEADLINE_MS = 24 * 3_600_000;

/**
 * The pinset of a backup, from its newest snapshot. A pin that wants more copies than there are peers is refused until storage nodes
 * come back, and they need this master for that: so the join goes on, and each later one tries again.
 */
export function restoredPins({ layout, nodePath }: MasterContext): StepSpec<Stage | null, RestorePins> {
  const { baseDir, snapshotsDir, cliCurrent } = layout;
  // Of this run.
  let isTried = false;
  return {
    id: "restored-pins",
    title: "pins of the backup",
    touches: "Pins again what the newest snapshot of a backup has.",
    // Only now is it known what of the backup is still needed.
    reprobeAfter: true,

    async probe({ files }): Promise<Finding<Stage | null>> {
      const stage = await readStage(files, baseDir);
      if (stage === null) return { state: "ours", seen: null, evidence: { restore: "none goes on" } };
      const evidence = {
        snapshot: stage.manifest.snapshots[0] ?? "none",
        pins: stage.hasPins ? "are there" : isTried ? "are not all there yet" : "are to come",
      };
      if (stage.hasPins || isTried) return { state: "ours", seen: stage, evidence };
      return { state: "drifted", seen: stage, drift: ["not all pins of the backup are there"], evidence };
    },

    plan({ state, seen: stage }) {
      if (state === "ours" || stage === null) return [];
      const [snapshot = ""] = stage.manifest.snapshots;
      // Retention may remove the one in place.
      const own = `${stage.directory}/${PLACES.base}${snapshotsDir.slice(baseDir.length)}`;
      const program = [nodePath, `${cliCurrent}/bin/fula-node.js`, "snapshot", "restore"];
      const runs = [...program, `${own}/${snapshot}.manifest.json`, "--base-dir", baseDir];
      return [{ kind: "restore-pins", summary: `pin again what the snapshot ${snapshot} has`, runs }];
    },

    async apply({ runs }, host, report) {
      const accept = [EXIT_CODES.interrupted];
      const exitCode = await host.system.runCommand(runs, { timeoutMs: DEADLINE_MS, onLine: report, accept });
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
