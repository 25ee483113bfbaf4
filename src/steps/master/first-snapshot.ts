import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import { countOf } from "../../units.ts";
import type { HostReader } from "../../host.ts";
import type { MasterContext } from "../../settings/context.ts";

interface Seen {
  readonly snapshots: number;
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
      const evidence = { [layout.snapshotsDir]: countOf(snapshots, "signed snapshot") };
      return { state: snapshots === 0 ? "absent" : "ours", seen: { snapshots }, evidence };
    },

    plan({ seen }) {
      return seen.snapshots > 0
        ? []
        : [{ kind: "take-snapshot", summary: "take the first snapshot of the pinset", runs }];
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
