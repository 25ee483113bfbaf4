import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import { compareCron, type CronEntry, isOurCron, renderCron, whyIgnored } from "../../machine/crontab.ts";
import { backupsOf } from "../../settings/master.ts";
import type { MasterContext } from "../../settings/context.ts";
import { CRON_FILES } from "../../settings/layout.ts";

interface Seen {
  readonly text: string | null;
}

type CronEntryChange = Change & {
  readonly kind: "write-cron-entry";
  readonly path: string;
  readonly runs: string;
};

type BackupCronChange =
  | CronEntryChange
  | (Change & { readonly kind: "remove-cron-entry"; readonly path: string });

/** Takes a signed snapshot of the pinset every six hours (upstream's schedule and file name). */
export function snapshotCron({ layout, nodePath, hash }: MasterContext) {
  return cronEntry({
    id: "snapshot-cron",
    title: "cron job for snapshots",
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

/** Sweeps for under-replicated pins every half hour (upstream's schedule and file name). */
export function sweepCron({ layout, nodePath, hash }: MasterContext) {
  return cronEntry({
    id: "sweep-cron",
    title: "cron job for sweeps",
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

/** What the line of the drills is made of: a join and `drill --schedule` write the same one. */
export interface DrillCronOptions extends Pick<MasterContext, "layout" | "nodePath" | "hash"> {
  /** The name of this master. */
  readonly name: string;
}

/** Runs every drill once a week. Only `drill --schedule` writes the file anew. */
export function newDrillCron({ layout, nodePath, hash, name }: DrillCronOptions) {
  return cronEntry({
    id: "drill-cron",
    title: "cron job for drills",
    path: CRON_FILES.drill,
    entry: {
      schedule: timeOfDrills(hash, name).schedule,
      argv: [
        nodePath,
        `${layout.cliCurrent}/bin/fula-node.js`,
        "drill",
        "--scheduled",
        "--base-dir",
        layout.baseDir,
      ],
      log: layout.drillLog,
      about: "Runs every drill. Written by fula-node; edits are undone by its next run.",
    },
    hash,
  });
}

const DRILL_HOURS = [1, 2, 3, 4] as const;

/** When cron runs the drills of this master: as cron writes it, and in words. */
export function timeOfDrills(
  hash: DrillCronOptions["hash"],
  name: string,
): { readonly schedule: string; readonly words: string } {
  // Masters that share a database shall not begin at the same minute.
  const at = Number.parseInt(hash(name).slice(0, 8), 16) % (DRILL_HOURS.length * 60);
  const [hour, minute] = [DRILL_HOURS[Math.floor(at / 60)] ?? DRILL_HOURS[0], at % 60];
  const clock = [hour, minute].map((part) => String(part).padStart(2, "0")).join(":");
  return { schedule: `${minute} ${hour} * * 0`, words: `Sundays at ${clock}` };
}

/** Keeps the file of `drill --schedule` up to date. Without it, or with somebody else's file there, there is nothing to do. */
export function drillCron(
  context: Pick<MasterContext, "layout" | "nodePath" | "hash" | "settings">,
): StepSpec<Seen, CronEntryChange> {
  const path = CRON_FILES.drill;
  const step = newDrillCron({ ...context, name: context.settings.get("CLUSTER_PEERNAME")?.value ?? "" });
  return {
    ...step,
    touches: `Writes ${path} again, if \`drill --schedule\` wrote it.`,
    async probe(host) {
      const text = await host.files.readText(path);
      if (text !== null && isOurCron(text)) return await step.probe(host);
      const found = text === null ? "absent: drills are not scheduled" : "not written by fula-node";
      return { state: "ours", seen: { text }, evidence: { [path]: found } };
    },
    async verify(host, report) {
      const text = await host.files.readText(path);
      if (text !== null && isOurCron(text)) await step.verify(host, report);
    },
  };
}

/** Backs up this master every night, if BACKUP_DIR and BACKUP_RECIPIENT are set. Removes our file if they are not. */
export function backupCron({
  layout,
  nodePath,
  hash,
  settings,
}: Pick<MasterContext, "layout" | "nodePath" | "hash" | "settings">): StepSpec<Seen, BackupCronChange> {
  const path = CRON_FILES.backup;
  const isWanted = backupsOf((key) => settings.get(key)?.value) !== null;
  const program = [nodePath, `${layout.cliCurrent}/bin/fula-node.js`];
  const step = cronEntry({
    id: "backup-cron",
    title: "cron job for backups",
    path,
    entry: {
      schedule: timeOfBackups(hash, settings.get("CLUSTER_PEERNAME")?.value ?? ""),
      argv: [...program, "backup", "create", "--scheduled", "--base-dir", layout.baseDir],
      log: layout.backupLog,
      about: "Backs up this master. Written by fula-node; edits are undone by its next run.",
    },
    hash,
  });
  return {
    ...step,
    touches: `Writes ${path} if BACKUP_DIR and BACKUP_RECIPIENT are set, and removes its own file if they are not.`,
    async probe(host) {
      if (isWanted) return await step.probe(host);
      const text = await host.files.readText(path);
      const seen = { text };
      if (text === null || !isOurCron(text))
        return { state: "ours", seen, evidence: { [path]: "absent: backups are not set up" } };
      return {
        state: "drifted",
        seen,
        drift: [`${path} is there, and BACKUP_DIR or BACKUP_RECIPIENT is not set`],
        evidence: { [path]: "written by fula-node" },
      };
    },
    plan(finding, ...more) {
      if (isWanted) return step.plan(finding, ...more);
      return finding.state === "ours" ? [] : [{ kind: "remove-cron-entry", summary: `remove ${path}`, path }];
    },
    async apply(change, host, report) {
      if (change.kind === "remove-cron-entry") await host.files.remove(change.path);
      else await step.apply(change, host, report);
    },
    async verify(host, report) {
      if (isWanted) return await step.verify(host, report);
      if (!isOurCron((await host.files.readText(path)) ?? "")) return;
      throw new OperatorError({ exit: "unhealthy", what: `${path} is still there.`, remedy: "Run again." });
    },
  };
}

/** Before the drills, and never at the minute of a snapshot or a sweep. Masters that share a database begin at different times. */
function timeOfBackups(hash: MasterContext["hash"], name: string): string {
  const at = Number.parseInt(hash(name).slice(8, 16), 16) % 50;
  return `${5 + (at % 25) + (at < 25 ? 0 : 30)} 0 * * *`;
}

/** One fula-node file in /etc/cron.d. */
function cronEntry(options: {
  readonly id: string;
  readonly title: string;
  readonly path: string;
  readonly entry: CronEntry;
  readonly hash: (text: string) => string;
}): StepSpec<Seen, CronEntryChange> {
  const { id, title, path, entry, hash } = options;
  const wanted = renderCron(entry, hash);
  const runs = entry.argv.join(" ");
  return {
    id,
    title,
    touches: `Writes ${path}.`,

    async probe(host): Promise<Finding<Seen>> {
      const [text, stat] = await Promise.all([host.files.readText(path), host.files.stat(path)]);
      const seen = { text };
      if (text === null) return { state: "absent", seen, evidence: { [path]: "absent" } };
      const verdict = compareCron(text, wanted, hash);
      const evidence = { [path]: verdict === "same" ? "as written by fula-node" : verdict };
      if (verdict === "foreign") {
        const drifted = {
          state: "drifted",
          seen,
          drift: [`${path} was not written by fula-node`],
          evidence,
        } as const;
        return {
          state: "foreign",
          evidence,
          why: `${path} was not written by fula-node.`,
          remedy: `If it is not needed, move it out of /etc/cron.d.`,
          claim: drifted,
        };
      }
      if (verdict !== "same") {
        const drift = [
          verdict === "edited"
            ? `${path} was edited by hand`
            : `${path} was written by another version or for other paths`,
        ];
        return { state: "drifted", seen, drift, evidence };
      }
      const ignored = stat === null ? null : whyIgnored(path, stat);
      if (ignored !== null) return { state: "drifted", seen, drift: [ignored], evidence };
      return { state: "ours", seen, evidence };
    },

    plan(finding) {
      if (finding.state === "ours") return [];
      return [{ kind: "write-cron-entry", summary: `write ${path} (${entry.schedule})`, path, runs }];
    },

    async apply(_change, host) {
      await host.files.writeAtomic(path, wanted, { mode: 0o644 });
    },

    async verify(host) {
      const program = entry.argv[1] ?? "";
      const [text, target] = await Promise.all([host.files.readText(path), host.files.readText(program)]);
      if (text === wanted && target !== null) return;
      throw new OperatorError({
        exit: "unhealthy",
        what:
          text === wanted
            ? `${path} calls ${program}, which is missing.`
            : `${path} does not have the content that was just written.`,
        remedy: "Run again.",
      });
    },
  };
}
