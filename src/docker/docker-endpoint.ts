import { OperatorError } from "../errors.ts";

const DEFAULT_SOCKET = "/var/run/docker.sock";

/**
 * The engine's socket: DOCKER_HOST where that names one, as the Docker CLI has it. Throws an
 * OperatorError (`settings`) for an engine elsewhere: what is installed here must run here.
 */
export function dockerSocket(dockerHost: string | undefined): string {
  if (dockerHost === undefined || dockerHost === "") return DEFAULT_SOCKET;
  const path = /^unix:\/\/(?<path>\/.+)$/.exec(dockerHost)?.groups?.["path"];
  if (path !== undefined) return path;
  throw new OperatorError({
    exit: "settings",
    what: "DOCKER_HOST does not name a socket of this machine.",
    why: "The node runs on the machine that it is installed on, so only a local engine will do.",
    remedy: `Unset DOCKER_HOST, or set it to unix:///path/to/docker.sock.`,
  });
}
