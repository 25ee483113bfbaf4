import type { Change, Evidence, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { poll } from "../settings/context.ts";

/** A program that runs what is in /etc/cron.d. Debian's packages of them exclude each other. */
interface Daemon {
  readonly name: string;
  readonly unit: string;
  /** Its process (`/proc/PID/comm`). Null for systemd-cron, which makes timers of the lines. */
  readonly process: string | null;
}

/** The first one is installed if there is none. crond.service is cronie's unit outside Debian. */
const DAEMONS: readonly [Daemon, ...Daemon[]] = [
  { name: "cron", unit: "cron.service", process: "cron" },
  { name: "systemd-cron", unit: "cron.target", process: null },
  { name: "cronie", unit: "cronie.service", process: "crond" },
  { name: "cronie", unit: "crond.service", process: "crond" },
  { name: "bcron", unit: "bcron-sched.service", process: "bcron-sched" },
];

interface Seen {
  /** The unit to start. */
  readonly unit: string;
  readonly isInstalled: boolean;
}

type CronChange =
  | (Change & { readonly kind: "install-packages"; readonly packages: readonly string[] })
  | (Change & { readonly kind: "start-cron"; readonly unit: string });

const START_DEADLINE_MS = 30_000;

/** The cron daemon, which starts the snapshots and sweeps. Any daemon that reads /etc/cron.d will do. */
export const cron: StepSpec<Seen, CronChange> = {
  id: "cron",
  title: "cron daemon",
  touches:
    "Installs the package cron, after confirmation, if no daemon reads `/etc/cron.d`. Starts the daemon, now and at every boot.",

  async probe(host) {
    const { daemon, isInstalled, isMasked, evidence, faults } = await lookAtDaemons(host);
    const seen = { unit: daemon.unit, isInstalled };
    if (!isInstalled) {
      return {
        state: "absent",
        seen,
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
    if (isMasked) {
      return {
        state: "foreign",
        evidence,
        why: `The unit ${daemon.unit} is masked, so the snapshots and sweeps can't start.`,
        remedy: `Run systemctl unmask ${daemon.unit}.`,
      };
    }
    return faults.length === 0
      ? { state: "ours", seen, evidence }
      : { state: "drifted", seen, drift: faults, evidence };
  },

  plan(finding) {
    if (finding.state === "ours") return [];
    const { unit, isInstalled } = finding.seen;
    const name = unit.replace(/\.service$/, "");
    const start = { kind: "start-cron", summary: `start ${name} now and at every boot`, unit } as const;
    if (isInstalled) return [start];
    const packages = [DAEMONS[0].name];
    return [{ kind: "install-packages", summary: "install the package cron", packages }, start];
  },

  async apply(change, host, report) {
    if (change.kind === "install-packages") {
      await host.system.installPackages(change.packages, report);
      return;
    }
    await host.system.enableUnit(change.unit);
    await poll(host, START_DEADLINE_MS, async () =>
      (await lookAtDaemons(host)).faults.length === 0 ? true : null,
    );
  },

  async verify(host) {
    const { daemon, faults } = await lookAtDaemons(host);
    if (faults.length === 0) return;
    throw new OperatorError({
      exit: "unhealthy",
      what: `${faults.join(", and ")}, so snapshots and sweeps do not start.`,
      remedy: `Look at \`journalctl -u ${daemon.unit} -n 50\`, then run again.`,
    });
  },
};

/**
 * Finds the daemon of this machine: one that runs, else one that is installed, else Debian's cron. `faults` says why
 * nothing in /etc/cron.d would run, now or after the next boot.
 */
async function lookAtDaemons(host: HostReader): Promise<{
  readonly daemon: Daemon;
  readonly isInstalled: boolean;
  readonly isMasked: boolean;
  readonly evidence: Evidence;
  readonly faults: readonly string[];
}> {
  const [program, ...found] = await Promise.all([
    host.system.which(DAEMONS[0].name),
    ...DAEMONS.map(async (daemon) => {
      const [unit, hasProcess] = await Promise.all([
        host.system.unit(daemon.unit),
        daemon.process === null ? false : host.system.isRunning(daemon.process),
      ]);
      return { daemon, unit, isRunning: hasProcess || unit?.active === true };
    }),
  ]);
  const chosen =
    found.find(({ unit, isRunning }) => isRunning && unit !== null) ??
    found.find(({ isRunning }) => isRunning) ??
    // Debian masks the unit of a cron that was removed. Its installation takes that back.
    found.find(
      ({ daemon, unit }) => unit !== null && !(unit.masked && program === null && daemon === DAEMONS[0]),
    );
  const { daemon, unit, isRunning } = chosen ?? { daemon: DAEMONS[0], unit: null, isRunning: false };
  const isInstalled = chosen !== undefined || program !== null;
  return {
    daemon,
    isInstalled,
    isMasked: unit?.masked === true,
    evidence: {
      daemon: isInstalled ? daemon.name : "not installed",
      running: isRunning ? "yes" : "no",
      "at boot": unit === null ? "unknown" : unit.atBoot ? "yes" : "no",
    },
    faults: [
      ...(isRunning ? [] : [`${daemon.name} is not running`]),
      ...(unit === null || unit.atBoot ? [] : [`${daemon.name} does not start at boot`]),
    ],
  };
}
