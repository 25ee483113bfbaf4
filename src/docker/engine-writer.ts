import { readFile } from "node:fs/promises";
import { relative } from "node:path";
import { OperatorError } from "../errors.ts";
import { fileError } from "../machine/file-errors.ts";
import { type ProgramEnvironment, programEnvironment, runProgram } from "../machine/run-program.ts";
import { dockerCli, finishReplacements } from "./compose-run.ts";
import { dockerSocket, Engine, NotFound } from "./engine-client.ts";
import type { RegistryLogin } from "./engine-logins.ts";
import { dockerReader } from "./engine-reader.ts";
import type { Docker, DockerReader } from "./engine.ts";
import { followProgress } from "./images/engine-progress.ts";
import { loadArchive } from "./images/load-archive.ts";
import { saveArchive } from "./images/save-archive.ts";
import { OR_FROM_ARCHIVE } from "./whole-images.ts";

type EngineMethods = Omit<Docker, keyof DockerReader | "composeUp" | "composeCreate">;
type Report = (line: string) => void;

const SLOW_CALL_IDLE_MS = 300_000;
const RESTART_IDLE_MS = 180_000;
const BUILD_IDLE_MS = 1_800_000;
const STOP_SECONDS = 60;

/**
 * The Docker engine of this machine, through its API, and through the Docker CLI for Compose. Throws an
 * OperatorError (`settings`) if DOCKER_HOST names an engine on another machine.
 */
export function createDocker(env: Readonly<Record<string, string | undefined>>): Docker {
  const socket = dockerSocket(env["DOCKER_HOST"]);
  const engine = new Engine(socket);
  const programs = { ...programEnvironment(env), DOCKER_HOST: `unix://${socket}` };
  const { composeUp, composeCreate, ...cli } = dockerCli(programs);
  const finished =
    (up: Docker["composeUp"]): Docker["composeUp"] =>
    async (project, services, report) => {
      await finishReplacements(engine, project.name, report);
      await up(project, services, report);
    };
  return {
    ...dockerReader(engine, programs),
    ...dockerWriter(engine, programs),
    ...cli,
    composeUp: finished(composeUp),
    composeCreate: finished(composeCreate),
  };
}

/** Changes one engine. `env` says where the registry logins are. */
function dockerWriter(engine: Engine, env: ProgramEnvironment): EngineMethods {
  return {
    pull: (reference, report, architecture) => pull(engine, env, { reference, architecture }, report),
    load: async (archive, report) => {
      await loadArchive(await engine.open(SLOW_CALL_IDLE_MS), archive, report);
      await syncDisks(env);
    },
    save: async (wanted, archive, report) =>
      // An engine writes everything to its own disk before the first byte comes.
      saveArchive(await engine.open(BUILD_IDLE_MS), wanted, { archive, report }),
    build: (options, report) => build(engine, env, options, report),
    runIn: async (container, argv, stdin, { timeoutMs }) => {
      const { exitCode, stopped, lastLines } = await runProgram(
        ["docker", "exec", "--interactive", container, ...argv],
        { env, timeoutMs, ...("file" in stdin ? { inputFile: stdin.file } : { input: stdin.text }) },
      );
      if (exitCode === 0) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${argv[0] ?? ""} in ${container} ${stopped === null ? `ended with exit code ${exitCode}` : "was not completed"}.`,
        why: stopped ?? lastLines.join("\n"),
      });
    },
    restart: async (name) => {
      const docker = await engine.open(RESTART_IDLE_MS);
      await docker.getContainer(encodeURIComponent(name)).restart({ t: STOP_SECONDS });
    },
    unpause: async (name) => {
      const docker = await engine.open();
      await docker.getContainer(encodeURIComponent(name)).unpause();
    },
    setRestartPolicy: async (name, policy) => {
      const [Name = "", most = "0"] = policy.split(":");
      const docker = await engine.open();
      await docker
        .getContainer(encodeURIComponent(name))
        .update({ RestartPolicy: { Name, MaximumRetryCount: Number(most) } });
    },
    stop: async (name) => {
      const docker = await engine.open(RESTART_IDLE_MS);
      // Without a timeout, the container's own grace period applies.
      await ignoreNotFound(docker.getContainer(encodeURIComponent(name)).stop());
    },
    removeContainer: async (name) => {
      const docker = await engine.open(RESTART_IDLE_MS);
      const container = docker.getContainer(encodeURIComponent(name));
      // Without a timeout, the container's own grace period applies.
      await ignoreNotFound(container.stop());
      await ignoreNotFound(container.remove({ force: true }));
    },
    removeNetwork: async (name) => {
      const docker = await engine.open();
      await ignoreNotFound(docker.getNetwork(encodeURIComponent(name)).remove());
    },
    removeVolume: async (name) => {
      const docker = await engine.open(SLOW_CALL_IDLE_MS);
      await ignoreNotFound(docker.getVolume(encodeURIComponent(name)).remove());
    },
    removeImage: async (reference) => {
      const docker = await engine.open(SLOW_CALL_IDLE_MS);
      await ignoreNotFound(docker.getImage(encodeURI(reference)).remove());
    },
  };
}

/** Ignores that an object to remove does not exist. */
async function ignoreNotFound(removal: Promise<unknown>): Promise<void> {
  try {
    await removal;
  } catch (thrown) {
    if (!(thrown instanceof NotFound)) throw thrown;
  }
}

/** The name and tag of an image for `POST /images/create`. Without a tag, the engine would pull all tags. */
export function splitReference(reference: string): { readonly fromImage: string; readonly tag?: string } {
  if (reference.includes("@")) return { fromImage: reference };
  const colon = reference.lastIndexOf(":");
  if (colon > reference.lastIndexOf("/")) {
    return { fromImage: reference.slice(0, colon), tag: reference.slice(colon + 1) };
  }
  return { fromImage: reference, tag: "latest" };
}

async function pull(
  engine: Engine,
  env: ProgramEnvironment,
  { reference, architecture }: { readonly reference: string; readonly architecture: string | undefined },
  report: Report,
): Promise<void> {
  const docker = await engine.open(SLOW_CALL_IDLE_MS);
  const { encodeCredentials, isRefusal, readRegistryLogin, refusalRemedy, registryOf } =
    await import("./engine-logins.ts");
  const login = await readRegistryLogin(registryOf(reference), env);
  reportLoginProblem(login, report);
  try {
    const auth = login.credentials === null ? undefined : { base64: encodeCredentials(login.credentials) };
    const platform = architecture === undefined ? {} : { platform: `linux/${architecture}` };
    const answer = await docker.createImage(auth, { ...splitReference(reference), ...platform });
    await followProgress(answer, `pull ${reference}`, report);
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    const why = thrown.why ?? thrown.what;
    throw new OperatorError({
      exit: "unavailable",
      what: isRefusal(why)
        ? `The registry ${login.registry} refused access to the image ${reference}.`
        : `The image ${reference} could not be pulled.`,
      why,
      remedy: isRefusal(why)
        ? refusalRemedy(login)
        : `Check the network and the image's name. Or pull it by hand (docker pull ${reference})${OR_FROM_ARCHIVE}. Then run again.`,
      cause: thrown,
    });
  }
  await expectImage(
    engine,
    reference,
    `Docker reported that it pulled ${reference}, but the image is missing.`,
  );
  await syncDisks(env);
}

/** Docker registers an image before the files of its layers are on the disk: a power cut would leave empty programs in it. */
async function syncDisks(env: ProgramEnvironment): Promise<void> {
  const { exitCode, stopped, lastLines } = await runProgram(["sync"], { env, timeoutMs: BUILD_IDLE_MS });
  if (exitCode === 0) return;
  throw new OperatorError({
    exit: "unavailable",
    what: "The image is here, but it could not be synced to the disk.",
    why: stopped ?? lastLines.join("; "),
  });
}

/** Checks that the image exists, because a progress stream without errors proves nothing. */
async function expectImage(engine: Engine, reference: string, what: string): Promise<void> {
  const image = await engine.find("image", (docker) => docker.getImage(encodeURI(reference)).inspect());
  if (image === null) throw new OperatorError({ exit: "unavailable", what });
}

/** Uses the engine's classic builder, because BuildKit accepts logins only over a gRPC session. */
async function build(
  engine: Engine,
  env: ProgramEnvironment,
  { context, dockerfile, tag, labels, buildArgs, noCache = false }: Parameters<Docker["build"]>[0],
  report: Report,
): Promise<void> {
  const docker = await engine.open(BUILD_IDLE_MS);
  const { encodeCredentials, isRefusal, readRegistryLogin, refusalRemedy, registryOf } =
    await import("./engine-logins.ts");
  const registries = new Set((await baseImages(dockerfile, buildArgs)).map(registryOf));
  const logins = await Promise.all([...registries].map((registry) => readRegistryLogin(registry, env)));
  for (const login of logins) reportLoginProblem(login, report);
  const known = logins.flatMap(({ key, credentials }) => (credentials === null ? [] : [[key, credentials]]));
  // In the bundle a CommonJS package has a default export only.
  const { default: tar } = await import("tar-fs");
  // As the Docker CLI does: the owners of the files on this box have no meaning in the image.
  const files = tar.pack(context, { map: (header) => ({ ...header, uid: 0, gid: 0 }) });
  const options = [
    ...Object.entries(labels).map(([key, value]) => `--label ${key}=${value}`),
    ...Object.entries(buildArgs).map(([key, value]) => `--build-arg ${key}=${value}`),
  ];
  const byHand = ["docker build --file", dockerfile, "--tag", tag, ...options, context].join(" ");
  try {
    const answer = await docker.buildImage(files, {
      t: tag,
      dockerfile: relative(context, dockerfile),
      labels: { ...labels },
      buildargs: { ...buildArgs },
      ...(noCache ? { nocache: true } : {}),
      // Otherwise an interrupted build leaves a container.
      forcerm: true,
      // The engine cannot read docker-modem's own encoding of this option.
      registryconfig: { base64: encodeCredentials(Object.fromEntries(known) as object) } as never,
    });
    await followProgress(answer, `build ${tag}`, report);
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    const why = thrown.why ?? thrown.what;
    const remedy = `Fix the reported problem, then run again. The same command by hand: ${byHand}`;
    throw new OperatorError({
      exit: "unavailable",
      what: `The image ${tag} could not be built.`,
      why,
      remedy: isRefusal(why) ? [...logins.map(refusalRemedy), remedy].join(" ") : remedy,
      cause: thrown,
    });
  } finally {
    files.destroy();
  }
  await expectImage(engine, tag, `Docker reported that it built ${tag}, but the image is missing.`);
  await syncDisks(env);
}

/** The images in a Dockerfile's FROM lines, with the build arguments inserted. */
async function baseImages(
  dockerfile: string,
  buildArgs: Readonly<Record<string, string>>,
): Promise<readonly string[]> {
  const text = await readFile(dockerfile, "utf8").catch((cause: unknown) => {
    throw fileError("read", dockerfile, cause);
  });
  const given = Object.fromEntries(
    [...text.matchAll(/^\s*ARG\s+(\w+)=(\S+)/gim)].map(([, name = "", value = ""]) => [name, value]),
  );
  const values: Readonly<Record<string, string>> = { ...given, ...buildArgs };
  const named = [...text.matchAll(/^\s*FROM\s+(?:--\S+\s+)*(\S+)/gim)].map(([, image = ""]) => image);
  return named.map((image) =>
    image.replace(
      /\$(?:\{(\w+)\}|(\w+))/g,
      (_, braced?: string, plain?: string) => values[braced ?? plain ?? ""] ?? "",
    ),
  );
}

function reportLoginProblem({ registry, problem }: RegistryLogin, report: Report): void {
  if (problem !== null) report(`the login for ${registry} is not used: ${problem}`);
}
