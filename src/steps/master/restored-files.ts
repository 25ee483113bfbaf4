import { unneededOf } from "../../backup/restore-stage.ts";
import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { MasterContext } from "../../settings/context.ts";

type RemoveFiles = Change & { readonly kind: "remove-unpacked"; readonly paths: readonly string[] };

/**
 * What was unpacked of a backup, secrets among it. It is the last step: until a join has come to its end once, the same command goes on
 * with the restore. While pins are missing, the snapshot that has them stays.
 */
export function restoredFiles({ layout }: MasterContext): StepSpec<readonly string[], RemoveFiles> {
  return {
    id: "restored-files",
    title: "what was unpacked of the backup",
    touches: "Removes what was unpacked of a backup, once all of it is in place.",

    async probe(host): Promise<Finding<readonly string[]>> {
      const seen = await unneededOf(host.files, layout);
      const evidence = { [layout.fromBackupDir]: seen.length === 0 ? "nothing to remove" : "is there" };
      if (seen.length === 0) return { state: "ours", seen, evidence };
      return { state: "drifted", seen, drift: [`${layout.fromBackupDir} is still there`], evidence };
    },

    plan({ seen: paths }) {
      if (paths.length === 0) return [];
      const kind = "remove-unpacked";
      return [{ kind, summary: `remove what was unpacked of the backup in ${layout.fromBackupDir}`, paths }];
    },

    async apply({ paths }, host) {
      for (const path of paths) await host.files.remove(path);
    },

    async verify(host) {
      const [left] = await unneededOf(host.files, layout);
      if (left === undefined) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${left} is still there: it was unpacked of the backup.`,
        remedy: "Run again.",
      });
    },
  };
}
