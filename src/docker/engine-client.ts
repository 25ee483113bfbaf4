import type Dockerode from "dockerode";
import { Agent, type IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { inspect } from "node:util";
import { messageOf, OperatorError } from "../errors.ts";
import { codeOf } from "../machine/file-errors.ts";
import type { Answer, AnswerName } from "./engine-answers.ts";
import { remedyForNetwork } from "./engine-answers.ts";
import { isAtLeast } from "./versions.ts";

const DEFAULT_SOCKET = "/var/run/docker.sock";
/** The newest API version that the reader and the writer support. */
const NEWEST_API = "1.44";
const IDLE_MS = 60_000;
const MAX_CONNECTIONS = 8;
const REMEDY = "Look at `journalctl -u docker -n 50`, then run again.";
const MAX_JSON_BYTES = 64 * 1024 ** 2;
/** For an answer that is not JSON. Only logs are not JSON. */
const MAX_LOG_BYTES = 4 * 1024 ** 2;

/** The engine does not answer at the socket: it is not installed or not running. `why` says which. */
export class NoEngine extends OperatorError {}

/** The engine answered 404: the object that the call names does not exist. */
export class NotFound extends OperatorError {}

/**
 * The engine's socket. DOCKER_HOST names it, as for the Docker CLI; otherwise it is the default. Throws an
 * OperatorError (`settings`) for an engine on another machine, because the node must run on this machine.
 */
export function dockerSocket(dockerHost: string | undefined): string {
  if (dockerHost === undefined || dockerHost === "") return DEFAULT_SOCKET;
  const path = /^unix:\/\/(?<path>\/.+)$/.exec(dockerHost)?.groups?.["path"];
  if (path !== undefined) return path;
  throw new OperatorError({
    exit: "settings",
    what: "DOCKER_HOST does not name a socket on this machine.",
    why: "The node runs on the machine where it is installed, so it needs a local engine.",
    remedy: `Unset DOCKER_HOST, or set it to unix:///path/to/docker.sock.`,
  });
}

/** One Docker engine, through dockerode. The first call loads dockerode. */
export class Engine {
  readonly #socket: string;
  readonly #clients = new Map<number, Dockerode>();
  #api: Promise<string> | null = null;

  constructor(socket: string) {
    this.#socket = socket;
  }

  /**
   * A dockerode client for the newest API version that both sides support. It ends a call after `idleMs`
   * without a byte in either direction. Its calls throw NoEngine, NotFound or an OperatorError (`unavailable`).
   */
  async open(idleMs = IDLE_MS): Promise<Dockerode> {
    const version = `v${await this.#negotiate()}`;
    const existing = this.#clients.get(idleMs);
    if (existing !== undefined) return existing;
    const client = await connect(this.#socket, idleMs, version);
    this.#clients.set(idleMs, client);
    return client;
  }

  /** `/version`, which every client may call without an API version. */
  async version(): Promise<Answer<"version">> {
    const client = await connect(this.#socket, IDLE_MS);
    return accept("version", await client.version());
  }

  /** Makes a call and returns the part of its answer that we use. */
  async ask<Name extends AnswerName>(
    name: Name,
    call: (docker: Dockerode) => Promise<unknown>,
  ): Promise<Answer<Name>> {
    return accept(name, await call(await this.open()));
  }

  /** The same, but null if the object does not exist. */
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

  /** Asks once. Asks again only after a failure. */
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

/** The API version to use: the newest that both sides support. */
export function chooseApi(newest: string, oldest: string): string {
  if (isAtLeast(NEWEST_API, newest)) return newest;
  return isAtLeast(NEWEST_API, oldest) ? NEWEST_API : oldest;
}

/** Throws an OperatorError (`unavailable`) if an answer does not match the API. */
async function accept<Name extends AnswerName>(name: Name, answer: unknown): Promise<Answer<Name>> {
  const { readAnswer } = await import("./engine-answers.ts");
  const read = readAnswer(name, answer);
  if ("data" in read) return read.data;
  throw new OperatorError({
    exit: "unavailable",
    what: "The answer at the Docker socket is not that of a Docker engine.",
    why: read.why,
    remedy: REMEDY,
  });
}

/**
 * docker-modem alone waits forever for a JSON answer that is cut off, accepts any text as an answer, and gives no
 * reason for a timeout. So this function requests every answer as a stream and reads it itself.
 */
async function connect(socketPath: string, idleMs: number, version?: string): Promise<Dockerode> {
  const { default: Docker } = await import("dockerode");
  const options: Dockerode.DockerOptions & { readonly agent: Agent } = {
    socketPath,
    // Otherwise docker-modem reads DOCKER_HOST of the process.
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
        if (error !== null) return throwUnless304(error, call, socketPath);
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

/** Opens one connection per call, so it never reuses one that the engine has closed. Ends an idle call with a reason. */
class EngineAgent extends Agent {
  readonly #idleMs: number;

  constructor(idleMs: number) {
    super({ keepAlive: false, maxSockets: MAX_CONNECTIONS });
    this.#idleMs = idleMs;
  }

  override createConnection(...args: Parameters<Agent["createConnection"]>) {
    const socket = super.createConnection(...args) as Socket;
    const reason = `no data for ${Math.round(this.#idleMs / 1000)} s`;
    return socket.setTimeout(this.#idleMs, () => socket.destroy(new Error(reason)));
  }

  /** docker-modem formats the whole request as text for every call, even if debugging is off. This keeps it cheap. */
  [inspect.custom](): string {
    return "EngineAgent";
  }
}

/** Why a stream of the engine ended early. The socket's error says more than the stream's. */
export function reasonOf(thrown: unknown, answer: IncomingMessage): string {
  return messageOf(answer.socket?.errored ?? thrown);
}

/** Throws the error that a failed call means. 304 is not a failure: the object already has the requested state. */
function throwUnless304(error: Error, call: string, socket: string): null {
  const status = "statusCode" in error ? error.statusCode : undefined;
  if (status === 304) return null;
  if (typeof status === "number") {
    const message =
      /^\(HTTP code \d+\) .*? - (?<message>.*)$/s.exec(error.message)?.groups?.["message"]?.trim() ?? "";
    const why = message === "" || message === "[object Object]" ? `HTTP ${status}` : message;
    throw status === 404 ? new NotFound(fieldsOf(call, why)) : unavailable(call, why);
  }
  const isConnecting = "syscall" in error && error.syscall === "connect";
  const code = isConnecting ? codeOf(error) : undefined;
  if (code === "ENOENT") throw noEngine(`no ${socket}`, error);
  if (code === "ECONNREFUSED") throw noEngine(`connection refused at ${socket}`, error);
  if (code !== "EACCES") throw unavailable(call, messageOf(error), error);
  throw new OperatorError({
    exit: "unavailable",
    what: `This user has no permission to open ${socket}.`,
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
    throw unavailable(call, "the answer is not JSON", cause);
  }
}

function noEngine(why: string, cause: unknown): NoEngine {
  return new NoEngine({
    exit: "unavailable",
    what: "The Docker engine is not responding.",
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
    what: `The Docker request ${call} failed.`,
    why,
    remedy: remedyForNetwork(why) ?? REMEDY,
  } as const;
}
