import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import { compareCron, type CronEntry, renderCron, whyIgnored } from "../../machine/crontab.ts";
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
