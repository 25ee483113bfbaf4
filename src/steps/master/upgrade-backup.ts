import lt from "semver/functions/lt.js";
import valid from "semver/functions/valid.js";
import type { Change, Consent, Finding, Report, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { MasterContext } from "../../settings/context.ts";

/** The backup before an upgrade. */
export interface UpgradeBackup {
  /** BACKUP_DIR; null if no backup is configured, or the operator goes without. */
  readonly directory: string | null;
  /** Makes it, and returns its path. */
  readonly make: (report: Report) => Promise<string>;
}

type BackupChange = Change & { readonly kind: "back-up" | "go-without" };

/** The flag with which an upgrade makes no backup. */
export const WITHOUT_BACKUP = "--without-backup";

/** A backup of an older version, before anything of it is changed. The link `cli/current` names that version until the step `cli`. */
export function upgradeBackup(
  { layout, version }: Pick<MasterContext, "layout" | "version">,
  { directory, make }: UpgradeBackup,
): StepSpec<string | null, BackupChange> {
  return {
    id: "upgrade-backup",
    title: directory === null ? "upgrade without a backup" : "backup before the upgrade",
    touches: "Before an upgrade, makes a backup in `BACKUP_DIR`.",

    async probe({ files }): Promise<Finding<string | null>> {
      const current = await files.readLink(layout.cliCurrent);
      const isOlder = current !== null && valid(current) !== null && lt(current, version);
      const evidence = { installed: current ?? "no version", running: version };
      if (!isOlder) return { state: "ours", seen: null, evidence };
      if (directory !== null) return { state: "absent", seen: current, evidence };
      const consent: Consent = {
        flag: WITHOUT_BACKUP,
        question: `Upgrade from ${current} to ${version} without a backup?`,
        byDefault: false,
        explicit: true,
        remedy: `Have one made: --set BACKUP_DIR=DIR --set BACKUP_RECIPIENT=age1... (docs/backup.md#a-key). Or go without: ${WITHOUT_BACKUP}`,
      };
      return { state: "absent", seen: current, evidence, consent };
    },

    plan({ seen: from }) {
      if (from === null) return [];
      if (directory !== null)
        return [{ kind: "back-up", summary: `back up to ${directory}, before the upgrade from ${from}` }];
      return [{ kind: "go-without", summary: `go without a backup before the upgrade from ${from}` }];
    },

    async apply({ kind }, _host, report) {
      if (kind === "go-without") return;
      const path = await make(report).catch((thrown: unknown) => {
        if (!(thrown instanceof OperatorError)) throw thrown;
        const { exit, what, why, remedy = "", problems } = thrown;
        throw new OperatorError({
          exit,
          what: `The backup before the upgrade was not made. ${what}`,
          ...(why === undefined ? {} : { why }),
          remedy: `${remedy} Or upgrade without one: ${WITHOUT_BACKUP}`.trim(),
          problems,
          cause: thrown,
        });
      });
      report(`made ${path}`);
    },

    verify: () => Promise.resolve(),
  };
}
