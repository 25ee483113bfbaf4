import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import type { HostReader } from "../../host.ts";
import type { MasterContext } from "../../settings/context.ts";

interface Seen {
  readonly snapshots: number;
}

type FirstSnapshotChange = Change & { readonly kind: "take-snapshot"; readonly runs: readonly string[] };

const DEADLINE_MS = 3_600_000;

/** The first snapshot, taken at once by the very command that cron will run. */
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
    touches: "Takes the first signed snapshot, by the command that cron runs.",

    async probe(host): Promise<Finding<Seen>> {
      const snapshots = await countSnapshots(host);
      const evidence = { [layout.snapshotsDir]: `${snapshots} signed snapshots` };
      return { state: snapshots === 0 ? "absent" : "ours", seen: { snapshots }, evidence };
    },

    plan({ seen }) {
      return seen.snapshots > 0
        ? []
        : [{ kind: "take-snapshot", summary: "take the first snapshot of the pinset", runs }];
    },

    async apply(change, host) {
      await host.system.runCommand(change.runs, { timeoutMs: DEADLINE_MS });
    },

    async verify(host) {
      if ((await countSnapshots(host)) > 0) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${layout.snapshotsDir} holds no signed snapshot.`,
        remedy: `Run \`${runs.join(" ")}\` and read what it says.`,
      });
    },
  };
}
