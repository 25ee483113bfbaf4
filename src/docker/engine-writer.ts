import { type FileHandle, open, readFile } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { relative } from "node:path";
import { Readable } from "node:stream";
import { messageOf, OperatorError } from "../errors.ts";
import { fileError } from "../machine/file-errors.ts";
import { type ProgramEnvironment, programEnvironment, runProgram } from "../machine/run-program.ts";
import { dockerCli, finishReplacements } from "./compose-run.ts";
import type { Answer } from "./engine-answers.ts";
import { dockerSocket, Engine, NotFound, reasonOf } from "./engine-client.ts";
import type { RegistryLogin } from "./engine-logins.ts";
import { dockerReader } from "./engine-reader.ts";
import type { Docker, DockerReader } from "./engine.ts";

type EngineMethods = Omit<Docker, keyof DockerReader | "composeUp" | "composeCreate">;
type Report = (line: string) => void;

const SLOW_CALL_IDLE_MS = 300_000;
const RESTART_IDLE_MS = 180_000;
const BUILD_IDLE_MS = 1_800_000;
const STOP_SECONDS = 60;
const LOADED = /^Loaded image/m;

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
    pull: (reference, report) => pull(engine, env, reference, report),
    load: async (archive, report) => {
      await load(engine, archive, report);
      await syncDisks(env);
    },
    build: (options, report) => build(engine, env, options, report),
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
  reference: string,
  report: Report,
): Promise<void> {
  const docker = await engine.open(SLOW_CALL_IDLE_MS);
  const { encodeCredentials, isRefusal, readRegistryLogin, refusalRemedy, registryOf } =
    await import("./engine-logins.ts");
  const login = await readRegistryLogin(registryOf(reference), env);
  reportLoginProblem(login, report);
  try {
    const auth = login.credentials === null ? undefined : { base64: encodeCredentials(login.credentials) };
    const answer = await docker.createImage(auth, splitReference(reference));
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
        : `Check the network and the image's name. Or pull it by hand (docker pull ${reference}), or pass the images in a file (--images ARCHIVE). Then run again.`,
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

async function load(engine: Engine, archive: string, report: Report): Promise<void> {
  const docker = await engine.open(SLOW_CALL_IDLE_MS);
  const file = await openArchive(archive);
  const body = Readable.from(bytesOf(file, archive, report), { objectMode: false });
  try {
    const answer = await docker.loadImage(body, { quiet: true });
    const messages = await followProgress(answer, `load ${archive}`, report);
    if (LOADED.test(messages.join("\n"))) return;
  } finally {
    body.destroy();
    await file.close();
  }
  throw new OperatorError({
    exit: "settings",
    what: `${archive} contains no image that Docker can load.`,
    remedy: "Pass a file that `docker save` wrote.",
  });
}

async function openArchive(archive: string): Promise<FileHandle> {
  const unreadable = (why: string, cause?: unknown) =>
    new OperatorError({
      exit: "settings",
      what: `The archive ${archive} cannot be read.`,
      why,
      remedy: "Pass --images the path of a file that `docker save` wrote.",
      cause,
    });
  const file = await open(archive).catch((cause: unknown) => {
    throw unreadable(fileError("read", archive, cause).why ?? messageOf(cause), cause);
  });
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw unreadable("it is not a regular file");
}

/** The archive's bytes. Reports each tenth of them. */
async function* bytesOf(
  file: FileHandle,
  archive: string,
  report: (line: string) => void,
): AsyncGenerator<Buffer> {
  const { size } = await file.stat();
  let seen = 0;
  let reportedTenths = 0;
  for await (const chunk of file.createReadStream({ autoClose: false }) as AsyncIterable<Buffer>) {
    yield chunk;
    seen += chunk.length;
    const tenths = Math.floor((seen * 10) / size);
    if (tenths > reportedTenths) report(`${archive}: ${tenths * 10} % read`);
    reportedTenths = tenths;
  }
}

const BYTES_PER_MB = 1_000_000;
/** A download is reported again after this share of its known size. */
const REPORTED_SHARE = 0.1;

/**
 * Reads the engine's progress stream (one JSON object per line) to its end, and reports the useful lines. Throws
 * if a line has `errorDetail`, which means failure for any HTTP status, and if the stream is cut off.
 * (docker-modem's own reader treats both as success.)
 */
async function followProgress(
  stream: NodeJS.ReadableStream,
  what: string,
  report: Report,
): Promise<readonly string[]> {
  const { readAnswer } = await import("./engine-answers.ts");
  const answer = stream as IncomingMessage;
  const download = new Download(what, report);
  const messages: string[] = [];
  try {
    for await (const text of linesOf(answer)) {
      if (text.trim() === "") continue;
      const read = readAnswer("progress", JSON.parse(text));
      if ("why" in read) throw failed(what, read.why);
      const line = read.data;
      const error = line.errorDetail?.message ?? line.error;
      if (error !== undefined) throw failed(what, error);
      if (line.progressDetail?.total !== undefined) download.add(line);
      const message = line.stream?.trim() ?? (line.id === undefined ? line.status : undefined);
      if (message === undefined || message === "") continue;
      messages.push(message);
      report(message);
    }
  } catch (thrown) {
    throw thrown instanceof OperatorError ? thrown : failed(what, reasonOf(thrown, answer), thrown);
  }
  if (!answer.complete) throw failed(what, "the engine closed the connection before the end");
  return messages;
}

/** Far longer than any line of progress. */
const MAX_LINE_CHARACTERS = 4 * 1024 ** 2;

/**
 * The lines of an answer. When its reader stops, the connection is closed: an engine that still sends, or that breaks the
 * connection later, is not listened to any more.
 */
async function* linesOf(answer: IncomingMessage): AsyncGenerator<string> {
  let rest = "";
  for await (const chunk of answer.setEncoding("utf8") as AsyncIterable<string>) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
    if (rest.length > MAX_LINE_CHARACTERS) throw new Error("a line of the answer is longer than 4 MiB");
  }
  yield rest;
}

/** Adds up the downloaded and total bytes of one image's layers. */
class Download {
  readonly #what: string;
  readonly #report: (line: string) => void;
  readonly #layers = new Map<string, { readonly current: number; readonly total: number }>();
  #reportedBytes = 0;

  constructor(what: string, report: (line: string) => void) {
    this.#what = what;
    this.#report = report;
  }

  add({ id = "", status, progressDetail }: Answer<"progress">): void {
    if (status !== "Downloading") return;
    this.#layers.set(id, { current: progressDetail?.current ?? 0, total: progressDetail?.total ?? 0 });
    const sum = (part: "current" | "total") =>
      [...this.#layers.values()].reduce((bytes, layer) => bytes + layer[part], 0);
    const current = sum("current");
    const total = sum("total");
    if (current - this.#reportedBytes < total * REPORTED_SHARE) return;
    this.#reportedBytes = current;
    const [have, need] = [current, total].map((bytes) => Math.round(bytes / BYTES_PER_MB));
    this.#report(`${this.#what}: ${have} of ${need} MB`);
  }
}

function failed(what: string, why: string, cause?: unknown): OperatorError {
  return new OperatorError({ exit: "unavailable", what: `Docker could not ${what}.`, why, cause });
}
