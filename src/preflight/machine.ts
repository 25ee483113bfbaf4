import { isAtLeast } from "../docker/versions.ts";
import { chooseNode } from "../machine/node-program.ts";
import { findOwnerFaults } from "../machine/owner-check.ts";
import { capitalised, gibibytes } from "../units.ts";
import type { Check, CheckProblem } from "./check.ts";

/** Passes for root: all files of a node belong to root. */
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
        what: `fula-node runs as user ${uid}, not as root.`,
        why: "It writes to /opt and /etc/cron.d, and uses Docker.",
        remedy: "Run the same command as root, or with sudo.",
      },
    ];
  },
};

/**
 * Fails if somebody else can replace what root will run: a directory above the base directory, or a link on the way to it.
 * What fula-node made itself is not refused, but repaired by the step `owners`.
 */
export const owners: Check = {
  id: "owners",
  title: "owners of the directories above",
  ignorable: true,

  async run(host, { guarded }) {
    const found = await Promise.all(guarded.map((path) => findOwnerFaults(host.files, path)));
    const above = new Map(found.flat().flatMap((one) => (one.isAbove ? [[one.path, one] as const] : [])));
    return [...above.values()].map(({ sentence, repair }) => ({
      severity: "failure" as const,
      what: `${capitalised(sentence)}.`,
      why: "Whoever can write there can replace what root runs.",
      remedy: `Run ${repair}, or use another --base-dir.`,
    }));
  },
};

/** Fails if there is no Node.js that root's cron can run, and warns if the next upgrade of Node.js will remove it. */
export const node: Check = {
  id: "node",
  title: "Node.js for cron",
  ignorable: true,

  async run(host, { cronNode }) {
    if (cronNode === null) return [];
    const { path, isLasting, rejected } = await chooseNode(host, cronNode);
    const remedy = "Install Node.js as a package of the system (Debian 13: apt-get install nodejs)";
    if (path === null) {
      return rejected.map(({ path: unfit, why, repair }) => ({
        severity: "failure",
        what: `Root's cron can't use ${unfit}: ${why}.`,
        remedy: `${remedy}${repair === null ? "" : `, or run ${repair}`}.`,
      }));
    }
    if (isLasting) return [];
    return [
      {
        severity: "warning",
        what: `Cron will use ${path}, which goes away with the next upgrade of Node.js.`,
        remedy: `${remedy}, or run join-as-master again after each upgrade.`,
      },
    ];
  },
};

/** The oldest release of each distribution that is tested. */
const OLDEST: Readonly<Record<string, string>> = { debian: "12", ubuntu: "22.04" };
/** Node.js's names of amd64 and arm64. All images exist for these. */
const ARCHITECTURES = ["x64", "arm64"];
/** Exists if systemd is running: sd_booted(3). */
const SYSTEMD_MARK = "/run/systemd/system";

/** Passes for a supported distribution and architecture. */
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
        why: "systemd starts Docker and cron at every boot.",
        remedy,
      });
    } else {
      problems.push({ severity: "warning", what: `${prettyName} is not tested.`, remedy });
    }
    return problems;
  },
};

/** A machine with 2 GiB reports less, since the kernel and the firmware reserve some of it. */
const RESERVED_SHARE = 0.1;

/** Fails below the required memory, warns below the recommended memory. */
export const memory: Check = {
  id: "memory",
  title: "memory",
  ignorable: true,

  async run(host, { minimumMemoryBytes: { required, recommended } }) {
    const bytes = host.system.memoryBytes();
    const has = (nominal: number) => bytes >= nominal * (1 - RESERVED_SHARE);
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
        what: `${what}; ${gibibytes(required)} are required.`,
        why: "With less, the kernel would kill kubo, ipfs-cluster and Postgres.",
        remedy: "Use a machine with more memory.",
      },
    ];
  },
};

const USUAL_ROOT = "/var/lib/docker";

/** Checks the free space for data in the base directory, and for images in Docker's root directory. */
export const disk: Check = {
  id: "disk",
  title: "free disk space",
  ignorable: true,

  async run(host, { baseDir, minimumFreeBytes }) {
    const dockerRoot = (await host.docker.version())?.rootDirectory ?? USUAL_ROOT;
    const required = [
      { path: baseDir, bytes: minimumFreeBytes.baseDir, use: "settings, data and snapshots" },
      { path: dockerRoot, bytes: minimumFreeBytes.dockerRoot, use: "images and volumes" },
    ];
    const spaces = await Promise.all(required.map(({ path }) => host.files.space(path)));
    return required.flatMap(({ path, bytes, use }, index) => {
      const freeBytes = spaces[index]?.freeBytes ?? 0;
      if (freeBytes >= bytes) return [];
      return [
        {
          severity: "failure" as const,
          what: `${path} has ${gibibytes(freeBytes)} free; ${gibibytes(bytes)} are required for ${use}.`,
          remedy: "Free some space there, or mount a larger disk.",
        },
      ];
    });
  },
};

/** fula-node did not exist before this year. */
const EARLIEST_YEAR = 2025;

/** timedatectl only controls a program that is installed; a small image has none. */
const SET_CLOCK =
  "Install a program that keeps the clock right, if there is none (apt-get install systemd-timesyncd, or chrony), and switch it on (timedatectl set-ntp true)";

/** Checks that the clock is plausible and synchronised. */
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
          what: `The clock is wrong: it shows ${now.toISOString()}.`,
          why: "Certificates, tokens and billing hours depend on it.",
          remedy: `${SET_CLOCK}, then run again.`,
        },
      ];
    }
    if ((await host.system.clockSynchronised()) !== false) return [];
    return [
      {
        severity: "warning",
        what: "The clock is not synchronised.",
        why: "Certificates, tokens and billing hours depend on it.",
        remedy: `${SET_CLOCK}.`,
      },
    ];
  },
};
