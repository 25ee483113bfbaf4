import type { DockerVersion } from "../docker/engine.ts";
import type { HostReader } from "../host/host.ts";
import { dockerPackages } from "../docker/packages.ts";
import { isAtLeast } from "../machine/compare-versions.ts";
import type { Check, CheckProblem } from "./check.ts";

/** Of Docker 20.10, the oldest engine of a supported distribution. */
const OLDEST_API = "1.41";

/** A Docker engine that answers and will do, or one that the docker step can install or start. */
export const engine: Check = {
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
