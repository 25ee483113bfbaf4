import type { Change, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import { poll } from "../settings/context.ts";

interface Seen {
  readonly program: string | null;
}

type CronChange =
  | (Change & { readonly kind: "install-packages"; readonly packages: readonly string[] })
  | (Change & { readonly kind: "start-cron" });

const START_DEADLINE_MS = 30_000;

/** The cron daemon, which starts the snapshots and sweeps. */
export const cron: StepSpec<Seen, CronChange> = {
  id: "cron",
  title: "cron daemon",
  touches: "Installs the package cron if it is missing, after confirmation. Starts it.",

  async probe(host) {
    const [program, running] = await Promise.all([host.system.which("cron"), host.system.isRunning("cron")]);
    const evidence = { cron: program ?? "not installed", running: running ? "yes" : "no" };
    if (program === null && !running) {
      return {
        state: "absent",
        seen: { program },
        evidence,
        consent: {
          flag: "--yes",
          question: "Install the package cron? It starts the snapshots and sweeps.",
          byDefault: true,
          explicit: false,
          remedy: "Run again with --yes, or first install cron yourself.",
        },
      };
    }
    if (!running) return { state: "drifted", seen: { program }, drift: ["cron is not running"], evidence };
    return { state: "ours", seen: { program }, evidence };
  },

  plan(finding) {
    if (finding.state === "ours") return [];
    const start = { kind: "start-cron", summary: "start cron now and at every boot" } as const;
    if (finding.state === "drifted") return [start];
    return [{ kind: "install-packages", summary: "install the package cron", packages: ["cron"] }, start];
  },

  async apply(change, host, report) {
    if (change.kind === "install-packages") {
      await host.system.installPackages(change.packages, report);
      return;
    }
    await host.system.enableUnit("cron");
    await poll(host, START_DEADLINE_MS, async () => ((await host.system.isRunning("cron")) ? true : null));
  },

  async verify(host) {
    if (await host.system.isRunning("cron")) return;
    throw new OperatorError({
      exit: "unhealthy",
      what: "The cron daemon is not running, so snapshots and sweeps do not start.",
      remedy: "Look at `journalctl -u cron -n 50`, then run again.",
    });
  },
};
