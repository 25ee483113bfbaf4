import { stat } from "node:fs/promises";
import { type ProgramEnvironment, runProgram } from "../machine/run-program.ts";

/** A plugin of the Docker CLI. */
export type DockerPlugin = "compose" | "buildx";

const TIMEOUT_MS = 20_000;
const VERSION_ARGUMENTS = { compose: ["version", "--short"], buildx: ["version"] } as const;

/** Where the Docker CLI looks for plugins besides its configuration (docker/cli, cli-plugins/manager/manager_unix.go). */
const PLUGIN_DIRECTORIES = [
  "/usr/local/lib/docker/cli-plugins",
  "/usr/local/libexec/docker/cli-plugins",
  "/usr/lib/docker/cli-plugins",
  "/usr/libexec/docker/cli-plugins",
];

/**
 * Makes a function that asks the Docker CLI for a plugin's version, without what a distribution adds to it
 * (`2.26.1-4`); null where it is not installed. An answer holds while the files that gave it are the very
 * same ones: every call looks at those.
 */
export function dockerPlugins(env: ProgramEnvironment): (plugin: DockerPlugin) => Promise<string | null> {
  const answers = new Map<DockerPlugin, { readonly files: string; readonly version: string }>();
  return async (plugin) => {
    const files = await identify(plugin, env);
    const answer = answers.get(plugin);
    if (files !== null && answer?.files === files) return answer.version;
    const version = await ask(plugin, env);
    if (files !== null && version !== null) answers.set(plugin, { files, version });
    return version;
  };
}

async function ask(plugin: DockerPlugin, env: ProgramEnvironment): Promise<string | null> {
  const argv = ["docker", plugin, ...VERSION_ARGUMENTS[plugin]];
  const { exitCode, stdout } = await runProgram(argv, { env, timeoutMs: TIMEOUT_MS });
  if (exitCode !== 0) return null;
  return /(?<![\w.])v?(?<version>\d+(?:\.\d+)+)/.exec(stdout)?.groups?.["version"] ?? null;
}

/** Names the CLI's and the plugin's files, a change of which nobody can hide; null where the plugin is in no usual place. */
async function identify(plugin: DockerPlugin, env: ProgramEnvironment): Promise<string | null> {
  const configuration = env["DOCKER_CONFIG"] ?? `${env["HOME"] ?? "/root"}/.docker`;
  const programs = env.PATH.split(":").map((directory) => `${directory}/docker`);
  const plugins = [`${configuration}/cli-plugins`, ...PLUGIN_DIRECTORIES].map(
    (directory) => `${directory}/docker-${plugin}`,
  );
  const [cli, found] = await Promise.all([programs, plugins].map(identifyFiles));
  return cli === undefined || found === undefined || cli === "" || found === "" ? null : `${cli}\n${found}`;
}

/** Those of the files that are there, each with what changes whenever its content does. */
async function identifyFiles(paths: readonly string[]): Promise<string> {
  const lines = await Promise.all(
    paths.map(async (path) => {
      const found = await stat(path, { bigint: true }).catch(() => null);
      return found === null ? [] : [`${path} ${found.dev} ${found.ino} ${found.size} ${found.ctimeNs}`];
    }),
  );
  return lines.flat().join("\n");
}
