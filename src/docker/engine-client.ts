import type Dockerode from "dockerode";
import { Agent, type IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { inspect } from "node:util";
import { messageOf, OperatorError } from "../errors.ts";
import { codeOf } from "../machine/file-errors.ts";
import type { Answer, AnswerName } from "./engine-answers.ts";
import { isAtLeast } from "./versions.ts";

const DEFAULT_SOCKET = "/var/run/docker.sock";
/** The newest API that the reader and the writer were written against. */
const NEWEST_API = "1.44";
const IDLE_MS = 60_000;
const MAX_CONNECTIONS = 8;
const REMEDY = "Look at `journalctl -u docker -n 50`, then run again.";
const MAX_JSON_BYTES = 64 * 1024 ** 2;
/** Of an answer that is not JSON, which is a log. */
const MAX_LOG_BYTES = 4 * 1024 ** 2;

/** No engine answers at the socket: it is not installed, or does not run. `why` says which. */
export class NoEngine extends OperatorError {}

/** The engine answered 404: it does not have the thing that the call names. */
export class NotFound extends OperatorError {}

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

/** One Docker engine, by dockerode, which is loaded with the first call. */
export class Engine {
  readonly #socket: string;
  readonly #clients = new Map<number, Dockerode>();
  #api: Promise<string> | null = null;

  constructor(socket: string) {
    this.#socket = socket;
  }

  /**
   * A dockerode that speaks the newest API that both sides know, and ends a call after so long without a
   * byte in either direction. Its calls throw NoEngine, NotFound or an OperatorError (`unavailable`).
   */
  async open(idleMs = IDLE_MS): Promise<Dockerode> {
    const version = `v${await this.#negotiate()}`;
    const there = this.#clients.get(idleMs);
    if (there !== undefined) return there;
    const client = await connect(this.#socket, idleMs, version);
    this.#clients.set(idleMs, client);
    return client;
  }

  /** `/version`, asked without naming an API version: every client may. */
  async version(): Promise<Answer<"version">> {
    const client = await connect(this.#socket, IDLE_MS);
    return accept("version", await client.version());
  }

  /** Makes a call, and gives the part of its answer that we use. */
  async ask<Name extends AnswerName>(
    name: Name,
    call: (docker: Dockerode) => Promise<unknown>,
  ): Promise<Answer<Name>> {
    return accept(name, await call(await this.open()));
  }

  /** The same; null where the engine does not have the thing. */
  async find<Name extends AnswerName>(
    name: Name,
    call: (docker: Dockerode) => Promise<unknown>,
  ): Promise<Answer<Name> | null> {
    try {
      return await this.ask(name, call);
    } catch (thrown) {
      if (thrown instanceof NotFound) return null;
      throw thrown;
    }
  }

  /** Asked once, and again after a failure. */
  #negotiate(): Promise<string> {
    this.#api ??= this.version().then(({ ApiVersion, MinAPIVersion }) =>
      chooseApi(ApiVersion, MinAPIVersion),
    );
    return this.#api.catch((thrown: unknown) => {
      this.#api = null;
      throw thrown;
    });
  }
}

/** The API version to speak: the newest that both sides know. */
export function chooseApi(newest: string, oldest: string): string {
  if (isAtLeast(NEWEST_API, newest)) return newest;
  return isAtLeast(NEWEST_API, oldest) ? NEWEST_API : oldest;
}

/** Throws an OperatorError (`unavailable`) where an answer is not as the API has it. */
async function accept<Name extends AnswerName>(name: Name, answer: unknown): Promise<Answer<Name>> {
  const { readAnswer } = await import("./engine-answers.ts");
  const read = readAnswer(name, answer);
  if ("data" in read) return read.data;
  throw new OperatorError({
    exit: "unavailable",
    what: "What answers at the Docker socket does not answer as a Docker engine does.",
    why: read.why,
    remedy: REMEDY,
  });
}

/**
 * docker-modem alone waits for ever for a JSON answer that breaks off, takes any text for an answer, and gives no
 * reason for a time-out. So every answer is asked for as a stream and read here.
 */
async function connect(socketPath: string, idleMs: number, version?: string): Promise<Dockerode> {
  const { default: Docker } = await import("dockerode");
  const options: Dockerode.DockerOptions & { readonly agent: Agent } = {
    socketPath,
    // Otherwise DOCKER_HOST of the process would have a say.
    host: undefined,
    agent: new EngineAgent(idleMs),
    ...(version === undefined ? {} : { version }),
  };
  const client = new Docker(options);
  const { modem } = client;
  const dial = modem.dial.bind(modem);
  modem.dial = (request, done = () => {}) => {
    const call = `${request.method ?? "GET"} ${request.path.replace(/\?$/, "")}`;
    dial({ ...request, isStream: true }, (error, answer) => {
      const answered = async () => {
        if (error !== null) return withoutError(error, call, socketPath);
        return request.isStream === true ? answer : readBody(answer as IncomingMessage, call);
      };
      answered().then(
        (result) => done(null, result),
        (thrown: Error) => done(thrown, null),
      );
    });
  };
  return client;
}

/** One connection a call: none that the engine has closed meanwhile is used again. Silence ends it with a reason. */
class EngineAgent extends Agent {
  readonly #idleMs: number;

  constructor(idleMs: number) {
    super({ keepAlive: false, maxSockets: MAX_CONNECTIONS });
    this.#idleMs = idleMs;
  }

  override createConnection(...given: Parameters<Agent["createConnection"]>) {
    const socket = super.createConnection(...given) as Socket;
    const late = `no sign of life for ${Math.round(this.#idleMs / 1000)} s`;
    return socket.setTimeout(this.#idleMs, () => socket.destroy(new Error(late)));
  }

  /** docker-modem prints the whole request into text for every call, whether anybody reads that or not. */
  [inspect.custom](): string {
    return "EngineAgent";
  }
}

/** Why a stream of the engine ended early: the socket knows more than the stream. */
export function reasonOf(thrown: unknown, answer: IncomingMessage): string {
  return messageOf(answer.socket?.errored ?? thrown);
}

/** Throws what a failed call means; 304 (it is as asked for already) is no failure. */
function withoutError(error: Error, call: string, socket: string): null {
  const status = "statusCode" in error ? error.statusCode : undefined;
  if (status === 304) return null;
  if (typeof status === "number") {
    const said =
      /^\(HTTP code \d+\) .*? - (?<words>.*)$/s.exec(error.message)?.groups?.["words"]?.trim() ?? "";
    const why = said === "" || said === "[object Object]" ? `HTTP ${status}` : said;
    throw status === 404 ? new NotFound(fieldsOf(call, why)) : unavailable(call, why);
  }
  const isConnecting = "syscall" in error && error.syscall === "connect";
  const code = isConnecting ? codeOf(error) : undefined;
  if (code === "ENOENT") throw noEngine(`no ${socket}`, error);
  if (code === "ECONNREFUSED") throw noEngine(`connection refused at ${socket}`, error);
  if (code !== "EACCES") throw unavailable(call, messageOf(error), error);
  throw new OperatorError({
    exit: "unavailable",
    what: `This user may not open ${socket}.`,
    remedy: "Run as root.",
    cause: error,
  });
}

/** JSON, the bytes of a log, or null for an empty answer. */
async function readBody(answer: IncomingMessage, call: string): Promise<object | null> {
  const isJson = /^application\/json\b/i.test(answer.headers["content-type"] ?? "");
  const maxBytes = isJson ? MAX_JSON_BYTES : MAX_LOG_BYTES;
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      size += chunk.length;
      if (size > maxBytes) break;
    }
  } catch (cause) {
    throw unavailable(call, reasonOf(cause, answer), cause);
  }
  if (size === 0) return null;
  const bytes = Buffer.concat(chunks);
  if (!isJson) return bytes;
  if (size > maxBytes) throw unavailable(call, `the answer is longer than ${maxBytes} bytes`);
  try {
    return JSON.parse(bytes.toString("utf8")) as object;
  } catch (cause) {
    throw unavailable(call, "the answer is no JSON", cause);
  }
}

function noEngine(why: string, cause: unknown): NoEngine {
  return new NoEngine({
    exit: "unavailable",
    what: "No Docker engine answers.",
    why,
    remedy: "Start it (systemctl start docker), then run again.",
    cause,
  });
}

function unavailable(call: string, why: string, cause?: unknown): OperatorError {
  return new OperatorError({ ...fieldsOf(call, why), cause });
}

function fieldsOf(call: string, why: string) {
  return {
    exit: "unavailable",
    what: `Docker does not do ${call}.`,
    why,
    remedy: REMEDY,
  } as const;
}
