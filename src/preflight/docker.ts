import type { DockerVersion } from "../docker/engine.ts";
import { dockerPackages, isAtLeast } from "../docker/versions.ts";
import type { HostReader } from "../host.ts";
import type { Check, CheckProblem } from "./check.ts";

/** The API version of Docker 20.10, the oldest engine of a supported distribution. */
const OLDEST_API = "1.41";

/** Passes if a suitable Docker engine responds, or if the docker step can install or start one. */
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
        what: "The Docker engine runs in rootless mode.",
        why: "Its host network is not the network of the machine, so the services could not reach each other. It also stops when its user logs out.",
        remedy: "Run a system-wide Docker engine. If DOCKER_HOST points to the rootless engine, unset it.",
      },
    ];
  }
  if (isAtLeast(apiVersion, OLDEST_API)) return [];
  return [
    {
      severity: "failure",
      what: `Docker ${version} is too old: it has API version ${apiVersion}, and ${OLDEST_API} is required.`,
      remedy: "Upgrade Docker to 20.10 or later.",
    },
  ];
}

/** The docker step installs a missing engine and starts a stopped one, if that is possible on this machine. */
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
    const what = `There is no Docker engine on this machine (${reason ?? "no engine answers"}).`;
    return [{ severity: "failure", what, why: packages.why, remedy: packages.remedy }];
  }
  if (unit !== null) return [];
  return [
    {
      severity: "failure",
      what: `Docker is installed (${daemon}), but does not answer: ${reason ?? "reason unknown"}.`,
      why: "It has no systemd unit that fula-node could start.",
      remedy: "Start dockerd manually, then run again.",
    },
  ];
}

const SNAP: CheckProblem = {
  severity: "failure",
  what: "Docker is installed as a snap.",
  why: "A snap is confined: it can't read /opt, where compose files and data are, and cron jobs can't find it.",
  remedy:
    "Remove it (snap remove docker), then run again. fula-node then installs Docker from the packages of the distribution.",
};

/** From March 2023: the first version with `--wait-timeout`, and older than the version of any supported distribution. */
const OLDEST = "2.17.0";

/** Passes if Compose v2 is installed, or if the distribution has a package for it. */
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
        what: `Docker Compose ${version} is too old; ${OLDEST} is required.`,
        remedy: "Upgrade the Compose plugin from the source that Docker was installed from.",
      },
    ];
  },
};

/** The abandoned project, under any registry and tag; not its maintained fork nickfedor/watchtower. */
const ABANDONED = /(?:^|\/)containrrr\/watchtower(?:[:@]|$)/;

/** Warns about a container of the abandoned updater, which the bash installer used to create. */
export const watchtower: Check = {
  id: "watchtower",
  title: "leftover containrrr/watchtower",
  ignorable: true,

  async run(host) {
    const leftovers = (await host.docker.containers()).filter(({ image }) => ABANDONED.test(image));
    return leftovers.map(({ name, image, status }) => ({
      severity: "warning",
      what: `The container ${name} (${image}, ${status}) belongs to an abandoned updater.`,
      why: "The project was archived in 2025. It uses an API that Docker 29 no longer supports. On older engines it restarts containers without being asked.",
      remedy: `Remove it: docker rm -f ${name}. For automatic updates, set AUTO_UPDATE=true.`,
    }));
  },
};
