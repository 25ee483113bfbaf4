import { readStage } from "../../backup/restore-stage.ts";
import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { MasterContext } from "../../settings/context.ts";

type PinsChange =
  | (Change & { readonly kind: "restore-pins"; readonly runs: readonly string[] })
  | (Change & { readonly kind: "remove-stage"; readonly path: string });

const DEADLINE_MS = 24 * 3_600_000;

/** The pinset of a backup, from its newest snapshot. It is the last thing of a restore: after it, what was unpacked is removed. */
export function restoredPins({
  layout,
  nodePath,
}: MasterContext): StepSpec<{ readonly snapshot: string | null; readonly stage: string } | null, PinsChange> {
  const { baseDir, snapshotsDir, cliCurrent } = layout;
  return {
    id: "restored-pins",
    title: "pins of the backup",
    touches: "Pins again what the newest snapshot of a backup has. Then removes what was unpacked.",

    async probe({
      files,
    }): Promise<Finding<{ readonly snapshot: string | null; readonly stage: string } | null>> {
      const stage = await readStage(files, baseDir);
      if (stage === null) return { state: "ours", seen: null, evidence: { restore: "none goes on" } };
      const [snapshot = null] = stage.manifest.snapshots;
      const evidence = { snapshot: snapshot ?? "none" };
      return { state: "absent", seen: { snapshot, stage: stage.directory }, evidence };
    },

    plan({ seen }) {
      if (seen === null) return [];
      const { snapshot, stage } = seen;
      const program = [nodePath, `${cliCurrent}/bin/fula-node.js`, "snapshot", "restore"];
      const runs = [...program, `${snapshotsDir}/${snapshot ?? ""}.manifest.json`, "--base-dir", baseDir];
      return [
        ...(snapshot === null
          ? []
          : [
              { kind: "restore-pins", summary: `pin again what the snapshot ${snapshot} has`, runs } as const,
            ]),
        { kind: "remove-stage", summary: `remove ${stage}: all of the backup is in place`, path: stage },
      ];
    },

    async apply(change, host, report) {
      if (change.kind === "remove-stage") return await host.files.remove(change.path);
      await host.system.runCommand(change.runs, { timeoutMs: DEADLINE_MS, onLine: report });
    },

    async verify({ files }) {
      if ((await readStage(files, baseDir)) === null) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${baseDir} still has what was unpacked of the backup.`,
        remedy: "Run again.",
      });
    },
  };
}
