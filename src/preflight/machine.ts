import { isAtLeast } from "../docker/versions.ts";
import { gibibytes } from "../units.ts";
import type { Check, CheckProblem } from "./check.ts";

/** Everything here belongs to root. */
export const root: Check = {
  id: "root",
  title: "run as root",
  ignorable: false,

  async run(host) {
    const uid = host.system.uid();
    if (uid === 0) return [];
    return [
      {
        severity: "failure",
        what: `This runs as user ${uid}, not as root.`,
        why: "It writes below /opt and /etc/cron.d, and talks to Docker.",
        remedy: "Run the same command as root, or with sudo.",
      },
    ];
  },
};

/** The oldest release of each distribution that is tested. */
const OLDEST: Readonly<Record<string, string>> = { debian: "12", ubuntu: "22.04" };
/** As node names them: amd64 and arm64, for which all images exist. */
const ARCHITECTURES = ["x64", "arm64"];
/** sd_booted(3). */
const SYSTEMD_MARK = "/run/systemd/system";

/** A distribution and an architecture that the product is made for. */
export const os: Check = {
  id: "os",
  title: "operating system and architecture",
  ignorable: true,

  async run(host) {
    const [{ id, versionId, prettyName, arch }, systemd] = await Promise.all([
      host.system.os(),
      host.files.stat(SYSTEMD_MARK),
    ]);
    const problems: CheckProblem[] = [];
    if (!ARCHITECTURES.includes(arch)) {
      problems.push({
        severity: "failure",
        what: `This machine's architecture is ${arch}.`,
        why: "The images exist for amd64 and arm64 only.",
        remedy: "Use a 64-bit Intel, AMD or ARM machine.",
      });
    }
    const oldest = OLDEST[id];
    if (oldest !== undefined && isAtLeast(versionId, oldest)) return problems;
    const remedy = "Use Debian 12 or later, or Ubuntu 22.04 or later.";
    if (systemd === null) {
      problems.push({
        severity: "failure",
        what: `${prettyName} without systemd is not supported.`,
        why: "Docker and cron have to be started at every boot.",
        remedy,
      });
    } else {
      problems.push({ severity: "warning", what: `${prettyName} is not tested.`, remedy });
    }
    return problems;
  },
};

/** A machine sold with 2 GiB shows less: the kernel and the firmware keep some to themselves. */
const KEPT_SHARE = 0.1;

/** Enough memory to run at all, and to run well. */
export const memory: Check = {
  id: "memory",
  title: "memory",
  ignorable: true,

  async run(host, { minimumMemoryBytes: { required, recommended } }) {
    const bytes = host.system.memoryBytes();
    const has = (nominal: number) => bytes >= nominal * (1 - KEPT_SHARE);
    if (has(recommended)) return [];
    const what = `This machine has ${gibibytes(bytes)} of memory`;
    if (has(required)) {
      return [
        {
          severity: "warning",
          what: `${what}; ${gibibytes(recommended)} are recommended.`,
          remedy: "Add memory or swap before the pinset grows.",
        },
      ];
    }
    return [
      {
        severity: "failure",
        what: `${what}; ${gibibytes(required)} are needed.`,
        why: "kubo, ipfs-cluster and Postgres would be killed by the kernel.",
        remedy: "Use a machine with more memory.",
      },
    ];
  },
};

const USUAL_ROOT = "/var/lib/docker";

/** Room for data at the base directory, and for images at Docker's root. */
export const disk: Check = {
  id: "disk",
  title: "free disk space",
  ignorable: true,

  async run(host, { baseDir, minimumFreeBytes }) {
    const dockerRoot = (await host.docker.version())?.rootDirectory ?? USUAL_ROOT;
    const wanted = [
      { path: baseDir, bytes: minimumFreeBytes.baseDir, use: "settings, data and snapshots" },
      { path: dockerRoot, bytes: minimumFreeBytes.dockerRoot, use: "images and volumes" },
    ];
    const spaces = await Promise.all(wanted.map(({ path }) => host.files.space(path)));
    return wanted.flatMap(({ path, bytes, use }, index) => {
      const freeBytes = spaces[index]?.freeBytes ?? 0;
      if (freeBytes >= bytes) return [];
      return [
        {
          severity: "failure" as const,
          what: `${path} has ${gibibytes(freeBytes)} free; ${gibibytes(bytes)} are needed for ${use}.`,
          remedy: "Free some space there, or mount a larger disk.",
        },
      ];
    });
  },
};

/** No machine on which this runs can honestly be in an earlier year. */
const EARLIEST_YEAR = 2025;

/** A clock that can be right: certificates, tokens and billing hours depend on it. */
export const clock: Check = {
  id: "clock",
  title: "clock",
  ignorable: true,

  async run(host) {
    const now = host.clock.now();
    if (now.getUTCFullYear() < EARLIEST_YEAR) {
      return [
        {
          severity: "failure",
          what: `The clock is wrong: it says ${now.toISOString()}.`,
          why: "Certificates, tokens and billing hours depend on it.",
          remedy: "Set it (timedatectl set-ntp true), then run again.",
        },
      ];
    }
    if ((await host.system.clockSynchronised()) !== false) return [];
    return [
      {
        severity: "warning",
        what: "The clock is not synchronised.",
        why: "Certificates, tokens and billing hours depend on it.",
        remedy: "Let systemd-timesyncd or chrony keep it: timedatectl set-ntp true.",
      },
    ];
  },
};
