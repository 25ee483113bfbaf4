import { spawn } from "node:child_process";
import { PassThrough, pipeline, type Readable, type Writable } from "node:stream";
import { dockerSocket } from "../docker/engine-client.ts";
import { OperatorError } from "../errors.ts";
import { type ProgramResult, programEnvironment, runProgram } from "../machine/run-program.ts";

/** A container that lives for minutes and is then removed with its data. Nothing of it is secret. */
export interface ThrowawaySpec {
  readonly name: string;
  /** An image on this machine; it is never pulled. */
  readonly image: string;
  /** The label by which it is found again, whoever started it. */
  readonly mark: string;
  /** `none`: it reaches nothing and nothing reaches it. `host`: it sees what this machine sees. */
  readonly network: "none" | "host";
  readonly memoryBytes: number;
  readonly environment: Readonly<Record<string, string>>;
  /** Directories in memory, as `docker run --tmpfs` takes them. */
  readonly temporary: readonly string[];
  /** A volume of its own at this path; null for none. */
  readonly data: string | null;
  /** `--user`; empty: the image's own. */
  readonly user: string;
  readonly capabilities: readonly string[];
  readonly entrypoint: string | null;
  readonly command: readonly string[];
}

/** A program that runs, and its streams. */
export interface Running {
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Never rejects. `lastLines` are of its standard error. */
  readonly ended: Promise<Pick<ProgramResult, "exitCode" | "lastLines" | "stopped">>;
}

/** Containers to throw away, through the Docker CLI: its streams go through pipes, so that nothing has to fit into memory. */
export interface Throwaway {
  /** Starts a container that runs on by itself. */
  start(spec: ThrowawaySpec): Promise<void>;
  /** Starts a container with its streams. It is there until it is removed, also after its end. */
  attach(spec: ThrowawaySpec): Running;
  /** Runs a program in a container with its streams. */
  open(container: string, argv: readonly string[]): Running;
  /** Runs a program in a container to its end. At most 16 MiB of its output are kept. */
  run(
    container: string,
    argv: readonly string[],
    options: { readonly timeoutMs: number; readonly input?: string },
  ): Promise<ProgramResult>;
  /** Removes every container with this mark, and its volumes. Returns a line for each thing that was removed. */
  removeMarked(mark: string): Promise<readonly string[]>;
}

const START_MS = 60_000;
const REMOVE_MS = 50_000;
/** An engine creates a container in far less time than so many looks take. */
const MOST_LOOKS = 20;
const KEPT_LINES = 20;
/** Of a line. Postgres can quote a whole row in one. */
const KEPT_CHARACTERS = 1_000;

/** The engine of this machine. `env` is the environment of the process. */
export function createThrowaway(env: Readonly<Record<string, string | undefined>>): Throwaway {
  // The engine of createDocker, also where a context of the Docker CLI names another one.
  const programs = {
    ...programEnvironment(env),
    DOCKER_HOST: `unix://${dockerSocket(env["DOCKER_HOST"])}`,
  };
  const docker = (argv: readonly string[], options: { timeoutMs: number; input?: string }) =>
    runProgram(["docker", ...argv], { env: programs, ...options });
  const ask = async (argv: readonly string[], timeoutMs: number): Promise<string> => {
    const { exitCode, stdout, lastLines, stopped } = await docker(argv, { timeoutMs });
    if (exitCode === 0) return stdout;
    throw new OperatorError({
      exit: "unavailable",
      what: `docker ${argv.slice(0, 2).join(" ")} failed.`,
      why: stopped ?? lastLines.join(" "),
      remedy: "Look at `journalctl -u docker -n 50`, then run again.",
    });
  };
  const open = (argv: readonly string[]): Running => openProgram(["docker", ...argv], programs);

  return {
    start: async (spec) => void (await ask([...runArgv(spec), "--detach", ...commandOf(spec)], START_MS)),
    attach: (spec) => open([...runArgv(spec), "--interactive", ...commandOf(spec)]),
    open: (container, argv) => open(["exec", "--interactive", container, ...argv]),
    run: (container, argv, options) =>
      docker(
        ["exec", ...(options.input === undefined ? [] : ["--interactive"]), container, ...argv],
        options,
      ),

    async removeMarked(mark) {
      const removed: string[] = [];
      const filter = ["--filter", `label=${mark}`, "--format"];
      for (let looks = 1; ; looks += 1) {
        const containers = linesOf(await ask(["ps", "--all", ...filter, "{{.Names}}"], START_MS));
        // With its volumes: those that the image asks for have no name and no mark.
        if (containers.length > 0) await ask(["rm", "--force", "--volumes", ...containers], REMOVE_MS);
        removed.push(...containers.map((name) => `the container ${name}`));
        const volumes = linesOf(await ask(["volume", "ls", ...filter, "{{.Name}}"], START_MS));
        if (volumes.length === 0) return removed;
        try {
          await ask(["volume", "rm", "--force", ...volumes], REMOVE_MS);
          return [...removed, ...volumes.map((name) => `the volume ${name}`)];
        } catch (thrown) {
          // Its container is being created: the client that asked for it was killed, and the engine goes on.
          if (looks === MOST_LOOKS) throw thrown;
        }
      }
    },
  };
}

function runArgv(spec: ThrowawaySpec): readonly string[] {
  const each = (flag: string, values: readonly string[]) => values.flatMap((value) => [flag, value]);
  return [
    "run",
    ...each("--name", [spec.name]),
    ...each("--label", [spec.mark]),
    ...each("--pull", ["never"]),
    ...each("--network", [spec.network]),
    ...each("--memory", [String(spec.memoryBytes)]),
    // A quarter of what each other container gets when all want to compute.
    ...each("--cpu-shares", ["256"]),
    ...each("--pids-limit", ["256"]),
    ...each("--cap-drop", ["ALL"]),
    ...each("--cap-add", spec.capabilities),
    ...each("--security-opt", ["no-new-privileges:true"]),
    "--read-only",
    ...each("--tmpfs", spec.temporary),
    // The volume has no name, so that it goes with its container, and the mark, in case that it does not.
    ...(spec.data === null
      ? []
      : each("--mount", [`type=volume,dst=${spec.data},volume-label=${spec.mark}`])),
    ...each(
      "--env",
      Object.entries(spec.environment).map(([key, value]) => `${key}=${value}`),
    ),
    ...(spec.user === "" ? [] : ["--user", spec.user]),
    ...(spec.entrypoint === null ? [] : ["--entrypoint", spec.entrypoint]),
    // The output of an attached container is its data. It must not be written to a log as well.
    ...each("--log-driver", [spec.network === "none" ? "json-file" : "none"]),
    ...(spec.network === "none" ? each("--log-opt", ["max-size=1m"]) : []),
  ];
}

function commandOf({ image, command }: ThrowawaySpec): readonly string[] {
  return [image, ...command];
}

function linesOf(text: string): readonly string[] {
  return text.split("\n").filter((line) => line !== "");
}

function openProgram(argv: readonly string[], env: Readonly<Record<string, string>>): Running {
  const [program = "", ...rest] = argv;
  const child = spawn(program, rest, { cwd: "/", env: { ...env }, stdio: "pipe" });
  const lastLines: string[] = [];
  let partial = "";
  const keep = (line: string): void => {
    if (line.trim() !== "") lastLines.push(line.slice(0, KEPT_CHARACTERS));
    if (lastLines.length > KEPT_LINES) lastLines.shift();
  };
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    const lines = (partial + text).split("\n");
    partial = (lines.pop() ?? "").slice(0, KEPT_CHARACTERS);
    for (const line of lines) keep(line);
  });
  // A program that ended reads no more; how it ended says why.
  child.stdin.on("error", () => {});
  const ended = new Promise<Awaited<Running["ended"]>>((resolve) => {
    const end = (exitCode: number | null, stopped: string | null): void => {
      keep(partial);
      partial = "";
      resolve({ exitCode, lastLines, stopped });
    };
    child.once("error", (error) => end(null, `${program} could not be run: ${error.message}`));
    child.once("close", (code, signal) =>
      end(code, code === null ? `${program} was killed by ${signal ?? "a signal"}` : null),
    );
  });
  // Node throws away what nobody has begun to read when a program exits. What goes through a stream of our own is kept.
  const stdout = new PassThrough();
  pipeline(child.stdout, stdout, () => {});
  return { stdin: child.stdin, stdout, ended };
}
