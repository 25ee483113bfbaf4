import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import { countOf } from "../../units.ts";
import type { HostReader } from "../../host.ts";
import type { MasterContext } from "../../settings/context.ts";

interface Seen {
  readonly snapshots: number;
  /** The last thing that a run writes, however it ends. Without it, the first one was cut off before its number was kept. */
  readonly isRecorded: boolean;
}

type FirstSnapshotChange = Change & { readonly kind: "take-snapshot"; readonly runs: readonly string[] };

const DEADLINE_MS = 3_600_000;

/** Takes the first snapshot immediately, with the same command that cron runs later. */
export function firstSnapshot({ layout, nodePath }: MasterContext): StepSpec<Seen, FirstSnapshotChange> {
  const runs = [
    nodePath,
    `${layout.cliCurrent}/bin/fula-node.js`,
    "snapshot",
    "take",
    "--base-dir",
    layout.baseDir,
  ];

  async function countSnapshots(host: HostReader): Promise<number> {
    const names = new Set((await host.files.list(layout.snapshotsDir)) ?? []);
    return [...names].filter(
      (name) => name.endsWith(".manifest.json") && names.has(name.replace(/\.json$/, ".sig")),
    ).length;
  }

  return {
    id: "first-snapshot",
    title: "first snapshot of the pinset",
    touches: "Takes the first signed snapshot with the command that cron runs.",

    async probe(host): Promise<Finding<Seen>> {
      const snapshots = await countSnapshots(host);
      const isRecorded = (await host.files.stat(layout.snapshotHeartbeat)) !== null;
      const evidence = {
        [layout.snapshotsDir]: countOf(snapshots, "signed snapshot"),
        [layout.snapshotHeartbeat]: isRecorded ? "is there" : "is missing",
      };
      return {
        state: snapshots > 0 && isRecorded ? "ours" : "absent",
        seen: { snapshots, isRecorded },
        evidence,
      };
    },

    plan({ state, seen }) {
      if (state === "ours") return [];
      const summary =
        seen.snapshots === 0
          ? "take the first snapshot of the pinset"
          : "take a snapshot of the pinset: no record says how the last one ended";
      return [{ kind: "take-snapshot", summary, runs }];
    },

    async apply(change, host, report) {
      try {
        await host.system.runCommand(change.runs, { timeoutMs: DEADLINE_MS });
      } catch (thrown) {
        if (!(thrown instanceof OperatorError) || (await countSnapshots(host)) === 0) throw thrown;
        report(`The snapshot was taken, but there is an alarm: ${thrown.why ?? thrown.what}`);
      }
    },

    async verify(host) {
      if ((await countSnapshots(host)) > 0) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${layout.snapshotsDir} contains no signed snapshot.`,
        remedy: `Run \`${runs.join(" ")}\` and read its output.`,
      });
    },
  };
}
