import type { DockerVersion } from "../docker/engine.ts";
import { dockerPackages, isAtLeast, isHalfInstalled } from "../docker/versions.ts";
import { readDpkg } from "../machine/apt.ts";
import type { HostReader } from "../host.ts";
import type { Check, CheckProblem } from "./check.ts";

/** The API version of Docker 20.10, the oldest engine of a supported distribution. */
const OLDEST_API = "1.41";

/** Passes if a suitable Docker engine responds, or if the docker step can install or start one. */
export const dockerEngine: Check = {
  id: "engine",
  title: "Docker engine",
  ignorable: false,

  async run(host, context) {
    const version = await host.docker.version();
    if (version === null) return judgeAbsence(host);
    const publishes = context.ports.some(({ purpose }) => purpose === PUBLISHED);
    return [...judge(version), ...(publishes ? await judgeForwarding(host) : [])];
  },
};

function judge({
  version,
  apiVersion,
  rootDirectory,
  rootless,
  userNamespaces,
}: DockerVersion): readonly CheckProblem[] {
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
  if (userNamespaces) {
    return [
      {
        severity: "failure",
        what: "The Docker engine maps the users of containers (userns-remap).",
        why: "With it, a container can't use the machine's network, which the services need. Data that exists would also get other owners.",
        remedy: `Remove "userns-remap" from ${DAEMON_FILE}, restart Docker (systemctl restart docker), then run again. Containers and images that were made with it are not visible afterwards.`,
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

const DAEMON_FILE = "/etc/docker/daemon.json";
/** The one port that Docker forwards to a container. All other containers use the machine's network. */
const PUBLISHED = "Postgres";

/**
 * Without both iptables and its proxy, the engine forwards no port. Either of them is enough. The API does not tell it
 * (Engine API 1.45), so the engine's file is read.
 */
async function judgeForwarding(host: HostReader): Promise<readonly CheckProblem[]> {
  const text = await host.files.readText(DAEMON_FILE);
  if (text === null) return [];
  const settings = readObject(text);
  if (settings["iptables"] !== false || settings["userland-proxy"] !== false) return [];
  return [
    {
      severity: "failure",
      what: "The Docker engine forwards no ports: iptables and userland-proxy are both off.",
      why: "The services could not reach Postgres in its container.",
      remedy: `Remove "userland-proxy": false or "iptables": false from ${DAEMON_FILE}, restart Docker (systemctl restart docker), then run again. Or use a database on another machine (POSTGRES_HOST).`,
    },
  ];
}

/** A file that is not JSON says nothing: the engine does not start with it. */
function readObject(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

/** The docker step installs a missing engine and starts a stopped one, if that is possible on this machine. */
async function judgeAbsence(host: HostReader): Promise<readonly CheckProblem[]> {
  const [reason, daemon, client, unit, os, installed] = await Promise.all([
    host.docker.unreachable(),
    host.system.which("dockerd"),
    host.system.which("docker"),
    host.system.unit("docker"),
    host.system.os(),
    readDpkg(host.files),
  ]);
  if ([daemon, client].some((path) => path?.startsWith("/snap/") === true)) return [SNAP];
  // Of an engine that apt was unpacking when it was killed, the program may be here before the unit.
  if (daemon === null || isHalfInstalled(installed)) {
    const packages = dockerPackages(os, installed);
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
    const [version, os, installed] = await Promise.all([
      host.docker.composeVersion(),
      host.system.os(),
      readDpkg(host.files),
    ]);
    if (version === null) {
      const packages = dockerPackages(os, installed);
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
      remedy: `Remove it: docker rm -f ${name}.`,
    }));
  },
};

/** Warns that a firewall on this machine does not guard a port that Docker publishes. */
export const firewall: Check = {
  id: "firewall",
  title: "ports that Docker publishes",
  ignorable: true,

  async run(host, { published }) {
    if (published === null) return [];
    const ufw = (await host.files.stat("/etc/ufw")) === null ? "A firewall such as ufw" : "The firewall ufw";
    return [
      {
        severity: "warning",
        what: `Docker will publish the database at ${published}. ${ufw} does not filter that port: Docker puts its own rules in front.`,
        remedy:
          "Every machine in that network can reach it. It answers over TLS only, and asks for the password. To admit the other masters alone, use the firewall of the network, or a rule in the chain DOCKER-USER.",
      },
    ];
  },
};
