import { programEnvironment } from "../machine/run-program.ts";
import { dockerCli } from "./compose-run.ts";
import { DockerApi } from "./docker-api.ts";
import { dockerSocket } from "./docker-endpoint.ts";
import { dockerReader } from "./docker-reader.ts";
import { dockerWriter } from "./docker-writer.ts";
import type { Docker } from "./engine.ts";

/**
 * The Docker engine of this machine, by its API where that serves, and by the Docker CLI for Compose and
 * builds. Throws an OperatorError (`settings`) where DOCKER_HOST names an engine elsewhere.
 */
export function createDocker(env: Readonly<Record<string, string | undefined>>): Docker {
  const socket = dockerSocket(env["DOCKER_HOST"]);
  const api = new DockerApi(socket);
  const programs = { ...programEnvironment(env), DOCKER_HOST: `unix://${socket}` };
  return { ...dockerReader(api, programs), ...dockerWriter(api), ...dockerCli(programs) };
}
