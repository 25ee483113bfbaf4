import { cronEntry } from "../../machine/cron-entry.ts";
import type { MasterContext } from "../../settings/master-context.ts";
import { CRON_FILES } from "../../settings/master-layout.ts";

/** Sweeps for under-replicated pins every half hour (upstream's schedule and file name). */
export function sweepCron({ layout, nodePath, hash }: MasterContext) {
  return cronEntry({
    id: "sweep-cron",
    title: "sweeps by cron",
    path: CRON_FILES.sweep,
    entry: {
      schedule: "*/30 * * * *",
      argv: [nodePath, `${layout.cliCurrent}/bin/fula-node.js`, "sweep", "--base-dir", layout.baseDir],
      log: layout.sweepLog,
      about: "Sweeps for under-replicated pins. Written by fula-node; edits are undone by its next run.",
    },
    hash,
  });
}
