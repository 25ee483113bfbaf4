import { cronEntry } from "../../machine/cron-entry.ts";
import type { MasterContext } from "../../settings/master-context.ts";
import { CRON_FILES } from "../../settings/master-layout.ts";

/** Takes a signed snapshot of the pinset every six hours (upstream's schedule and file name). */
export function snapshotCron({ layout, nodePath, hash }: MasterContext) {
  return cronEntry({
    id: "snapshot-cron",
    title: "snapshots by cron",
    path: CRON_FILES.snapshot,
    entry: {
      schedule: "0 */6 * * *",
      argv: [
        nodePath,
        `${layout.cliCurrent}/bin/fula-node.js`,
        "snapshot",
        "take",
        "--base-dir",
        layout.baseDir,
      ],
      log: layout.snapshotLog,
      about: "Takes a signed snapshot of the pinset. Written by fula-node; edits are undone by its next run.",
    },
    hash,
  });
}
