import { OperatorError } from "../errors.ts";
import { shareInFlight } from "../machine/file-reader.ts";
import { type ProgramEnvironment, runProgram } from "../machine/run-program.ts";
import type { ComposeProject, Docker } from "./engine.ts";
import { PROJECT_LABEL } from "./compose-document.ts";
import { remedyForNetwork } from "./engine-answers.ts";
import { type Engine, NotFound } from "./engine-client.ts";

type ComposeCommands = Pick<Docker, "composeUp" | "composeCreate" | "composeHashes">;

const COMPOSE = ["docker", "compose"];
const UP = ["up", "--detach", "--no-build", "--pull", "never"];
const CREATE = ["up", "--no-start", "--no-build", "--pull", "never"];
const HASH = ["config", "--hash", "*"];
/** In place of a file with variables: every value is in the environment of Compose. */
const NO_FILE = "/dev/null";
const UP_TIMEOUT_MS = 900_000;
const CONFIG_TIMEOUT_MS = 60_000;
const SECRET_NAME = /PASSWORD|SECRET|TOKEN|KEY|CREDENTIAL/i;
const SHORTEST_REDACTED = 4;
/** Compose quotes what it reads as a variable's name. That can be part of a secret value. */
const UNSET_VARIABLE = /variable is not set/i;

/** The name that Compose gives to a new container until the old one, with this id, is gone. */
const TEMPORARY_NAME = /^[0-9a-f]{12}_(.+)$/;

/**
 * What a Compose that was killed in the middle left of its replacements, among a project's containers. It creates the new
 * container with a temporary name, removes the old one, and renames and starts the new one. So what has such a name and never
 * ran is a new container: it takes the place of an old one that is gone (it may have its anonymous volumes), or goes itself.
 */
export function unfinishedReplacements(
  containers: readonly { readonly name: string; readonly status: string }[],
): {
  readonly remove: readonly string[];
  readonly rename: readonly { readonly from: string; readonly to: string }[];
} {
  const taken = new Set(containers.map(({ name }) => name));
  const remove: string[] = [];
  const rename: { readonly from: string; readonly to: string }[] = [];
  for (const { name, status } of containers) {
    const to = TEMPORARY_NAME.exec(name)?.[1];
    if (to === undefined || status !== "created") continue;
    if (taken.has(to)) remove.push(name);
    else rename.push({ from: name, to });
    taken.add(to);
  }
  return { remove, rename };
}

/** Compose gives up on what it left itself when it was killed while it replaced a container. */
export async function finishReplacements(
  engine: Engine,
  project: string,
  report: (line: string) => void,
): Promise<void> {
  const docker = await engine.open();
  const filters = { label: [`${PROJECT_LABEL}=${project}`] };
  const listed = await docker.listContainers({ all: true, filters });
  const { remove, rename } = unfinishedReplacements(
    listed.map(({ Names, State }) => ({ name: (Names[0] ?? "").replace(/^\//, ""), status: State })),
  );
  for (const name of remove) {
    report(`remove ${name}, which an interrupted run left`);
    await docker
      .getContainer(encodeURIComponent(name))
      .remove()
      .catch((thrown: unknown) => {
        if (!(thrown instanceof NotFound)) throw thrown;
      });
  }
  for (const { from, to } of rename) {
    report(`rename ${from}, which an interrupted run left, to ${to}`);
    await docker.getContainer(encodeURIComponent(from)).rename({ name: to });
  }
}

/** The commands that need the Docker CLI: `docker compose`. `env` names the engine's socket. */
export function dockerCli(env: ProgramEnvironment): ComposeCommands {
  const hashOnce = shareInFlight<Readonly<Record<string, string>>>();
  const bringUp = async (
    command: readonly string[],
    project: ComposeProject,
    services: readonly string[],
    report: (line: string) => void,
  ): Promise<void> => {
    const redact = redactor(Object.entries(project.environment));
    const { exitCode, stopped, lastLines } = await runProgram(
      [...composeArgv(project, NO_FILE), ...command, ...services],
      {
        env: { ...project.environment, ...env },
        timeoutMs: UP_TIMEOUT_MS,
        onLine: (line) => reportNonEmpty(redact(line), report),
      },
    );
    if (exitCode === 0) return;
    const why = stopped ?? lastOutput(lastLines.map(redact));
    throw new OperatorError({
      exit: "unavailable",
      what: `docker compose could not start ${services.join(", ") || "the services"} of the project ${project.name}.`,
      why,
      remedy:
        remedyForNetwork(why) ??
        `Fix the reported problem, then run again. The same command by hand: ${[...composeArgv(project, project.envFile), ...command, ...services].join(" ")}`,
    });
  };
  return {
    composeUp: (project, services, report) => bringUp(UP, project, services, report),
    composeCreate: (project, services, report) => bringUp(CREATE, project, services, report),

    composeHashes: (document) => hashOnce(JSON.stringify(document), () => hashesOf(document, env)),
  };
}

async function hashesOf(
  { name, text, directory, profiles, environment }: Parameters<Docker["composeHashes"]>[0],
  env: ProgramEnvironment,
): Promise<Readonly<Record<string, string>>> {
  const argv = [
    ...COMPOSE,
    ...options({
      "project-name": name,
      file: "-",
      "project-directory": directory,
      "env-file": NO_FILE,
    }),
    ...profilesOf(profiles),
    ...HASH,
  ];
  const { exitCode, stdout, lastLines, stopped } = await runProgram(argv, {
    env: { ...environment, ...env },
    input: text,
    timeoutMs: CONFIG_TIMEOUT_MS,
  });
  if (exitCode === 0) return hashesIn(stdout);
  const redact = redactor(Object.entries(environment));
  throw new OperatorError({
    exit: "unavailable",
    what: `docker compose cannot read the compose file of ${name}.`,
    why: stopped ?? lastOutput(lastLines.map(redact)),
  });
}

function composeArgv({ name, file, profiles }: ComposeProject, envFile: string): readonly string[] {
  return [
    ...COMPOSE,
    ...options({ "project-name": name, file, "env-file": envFile, ansi: "never" }),
    ...profilesOf(profiles),
  ];
}

function options(pairs: Readonly<Record<string, string>>): readonly string[] {
  return Object.entries(pairs).flatMap(([name, value]) => [`--${name}`, value]);
}

function profilesOf(profiles: readonly string[]): readonly string[] {
  return profiles.flatMap((profile) => ["--profile", profile]);
}

/** `docker compose config --hash` prints `service hash` lines. */
function hashesIn(stdout: string): Readonly<Record<string, string>> {
  const pairs = stdout.split("\n").map((line) => line.trim().split(/\s+/));
  return Object.fromEntries(
    pairs.filter((pair): pair is [string, string] => pair.length === 2 && pair[1] !== undefined),
  );
}

/** Removes the values of keys with a secret's name from a line. */
function redactor(values: readonly (readonly [string, string])[]): (line: string) => string {
  const secrets = values
    .filter(([key, value]) => SECRET_NAME.test(key) && value.length >= SHORTEST_REDACTED)
    .map(([, value]) => value)
    .sort((a, b) => b.length - a.length);
  return (line) => {
    if (UNSET_VARIABLE.test(line)) return "a variable that the compose file names is not set";
    return secrets.reduce((text, secret) => text.replaceAll(secret, "<redacted>"), line);
  };
}

function reportNonEmpty(line: string, report: (line: string) => void): void {
  const text = line.trim();
  if (text !== "") report(text);
}

function lastOutput(lines: readonly string[]): string {
  return lines.filter((line) => line.trim() !== "").join("\n") || "it printed nothing";
}
