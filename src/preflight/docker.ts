import type { DockerVersion } from "../docker/engine.ts";
import { dockerPackages, isAtLeast } from "../docker/versions.ts";
import type { HostReader } from "../host.ts";
import type { Check, CheckProblem } from "./check.ts";

/** Of Docker 20.10, the oldest engine of a supported distribution. */
const OLDEST_API = "1.41";

/** A Docker engine that answers and will do, or one that the docker step can install or start. */
export const dockerEngine: Check = {
  id: "engine",
  title: "Docker engine",
  ignorable: false,

  async run(host) {
    const version = await host.docker.version();
    return version === null ? judgeAbsence(host) : judge(version);
  },
};

function judge({ version, apiVersion, rootDirectory, rootless }: DockerVersion): readonly CheckProblem[] {
  if (rootDirectory.startsWith("/var/snap/")) return [SNAP];
  if (rootless) {
    return [
      {
        severity: "failure",
        what: "The Docker engine runs rootless.",
        why: "Its host network is not the machine's, so the services would not reach each other; and it stops with its user's session.",
        remedy: "Run a system-wide Docker engine, and unset DOCKER_HOST where that names the rootless one.",
      },
    ];
  }
  if (isAtLeast(apiVersion, OLDEST_API)) return [];
  return [
    {
      severity: "failure",
      what: `Docker ${version} is too old: it speaks API ${apiVersion}, and ${OLDEST_API} is needed.`,
      remedy: "Upgrade Docker to 20.10 or later.",
    },
  ];
}

/** The docker step installs a missing engine and starts a stopped one, where this machine lets it. */
async function judgeAbsence(host: HostReader): Promise<readonly CheckProblem[]> {
  const [reason, daemon, client, unit, os] = await Promise.all([
    host.docker.unreachable(),
    host.system.which("dockerd"),
    host.system.which("docker"),
    host.system.unit("docker"),
    host.system.os(),
  ]);
  if ([daemon, client].some((path) => path?.startsWith("/snap/") === true)) return [SNAP];
  if (daemon === null) {
    const packages = dockerPackages(os);
    if (packages.kind === "packages") return [];
    const what = `There is no Docker engine here (${reason ?? "none answers"}).`;
    return [{ severity: "failure", what, why: packages.why, remedy: packages.remedy }];
  }
  if (unit !== null) return [];
  return [
    {
      severity: "failure",
      what: `Docker is installed (${daemon}), but does not answer: ${reason ?? "no reason known"}.`,
      why: "There is no systemd unit for it that could be started.",
      remedy: "Start dockerd the way this machine starts its services, then run again.",
    },
  ];
}

const SNAP: CheckProblem = {
  severity: "failure",
  what: "Docker comes from a snap here.",
  why: "A snap is confined: it can't read /opt, where compose files and data are, and cron does not find it.",
  remedy:
    "Remove it (snap remove docker), then run again: Docker from the distribution's packages is installed.",
};

/** Of March 2023: the first with `--wait-timeout`, and older than any that a supported distribution has. */
const OLDEST = "2.17.0";

/** Compose v2, or a distribution whose packages have it. */
export const compose: Check = {
  id: "compose",
  title: "Docker Compose v2",
  ignorable: false,

  async run(host) {
    const [version, os] = await Promise.all([host.docker.composeVersion(), host.system.os()]);
    if (version === null) {
      const packages = dockerPackages(os);
      if (packages.kind === "packages") return [];
      const what = "Docker Compose v2 is not installed.";
      return [{ severity: "failure", what, why: packages.why, remedy: packages.remedy }];
    }
    if (isAtLeast(version, OLDEST)) return [];
    return [
      {
        severity: "failure",
        what: `Docker Compose ${version} is too old; ${OLDEST} is needed.`,
        remedy: "Upgrade the Compose plugin, from wherever Docker was installed.",
      },
    ];
  },
};

/** The abandoned project, under any registry and tag; not its maintained fork nickfedor/watchtower. */
const ABANDONED = /(?:^|\/)containrrr\/watchtower(?:[:@]|$)/;

/** A leftover of the abandoned updater that the bash installer used to set up. */
export const watchtower: Check = {
  id: "watchtower",
  title: "leftover containrrr/watchtower",
  ignorable: true,

  async run(host) {
    const leftovers = (await host.docker.containers()).filter(({ image }) => ABANDONED.test(image));
    return leftovers.map(({ name, image, status }) => ({
      severity: "warning",
      what: `The container ${name} (${image}, ${status}) is a leftover of an abandoned updater.`,
      why: "It was archived in 2025 and speaks an API that Docker 29 no longer answers; before that it restarts containers unasked.",
      remedy: `Remove it: docker rm -f ${name}. Updates are the profile that AUTO_UPDATE switches on.`,
    }));
  },
};
