import { Agent, type ClientRequest, type IncomingMessage, request } from "node:http";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { messageOf, OperatorError } from "../errors.ts";
import { isAtLeast } from "../machine/compare-versions.ts";
import { codeOf } from "../machine/file-errors.ts";

/** One call of the Docker Engine API (docs.docker.com/reference/api/engine). */
export interface DockerCall {
  readonly method?: "GET" | "POST" | "DELETE";
  /** Without the version: `/containers/json`. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** A body to stream, as a tar archive. */
  readonly body?: Readable;
  /** The longest silence that is borne. */
  readonly idleMs?: number;
}

/** The newest API that this client was written against. */
const NEWEST_API = "1.44";
const IDLE_MS = 60_000;
const MAX_BODY_BYTES = 64 * 1024 ** 2;
const MAX_CONNECTIONS = 8;

/** Thrown where no engine answers at the socket: not installed, or not running. */
export class NoEngine extends Error {}

/** A client of one Docker engine, over its Unix socket. */
export class DockerApi {
  readonly socket: string;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: MAX_CONNECTIONS });
  #prefix: Promise<string> | null = null;

  constructor(socket: string) {
    this.socket = socket;
  }

  /** The answer's JSON; null for 404. Throws NoEngine or an OperatorError (`unavailable`). */
  async json(call: DockerCall): Promise<unknown> {
    const answer = await this.stream(call);
    if (answer === null) return null;
    const text = (await readBody(answer, call)).toString("utf8");
    if (text === "") return null;
    try {
      return JSON.parse(text) as unknown;
    } catch (cause) {
      throw unavailable(call, "the answer is no JSON", cause);
    }
  }

  /** The answer's bytes, up to so many; null for 404. */
  async bytes(call: DockerCall, maxBytes: number): Promise<Buffer | null> {
    const answer = await this.stream(call);
    return answer === null ? null : readBody(answer, call, maxBytes);
  }

  /** The answer as it comes; null for 404. The caller reads it to its end. */
  async stream(call: DockerCall): Promise<IncomingMessage | null> {
    const prefix = await this.#negotiate();
    const answer = await this.#send({ ...call, path: `${prefix}${call.path}` });
    const status = answer.statusCode ?? 0;
    // 304: it is already as asked for.
    if (status < 300 || status === 304) return answer;
    const text = (await readBody(answer, call)).toString("utf8");
    if (status === 404) return null;
    throw unavailable(call, reasonIn(text) ?? `HTTP ${status}`);
  }

  /** `/version`, asked without negotiating: any client may. */
  async version(): Promise<Readonly<Record<string, unknown>>> {
    const call = { path: "/version" };
    const answer = await this.#send(call);
    const text = (await readBody(answer, call)).toString("utf8");
    if (answer.statusCode !== 200) throw unavailable(call, reasonIn(text) ?? `HTTP ${answer.statusCode}`);
    try {
      return JSON.parse(text) as Record<string, unknown>;
    } catch (cause) {
      throw unavailable(call, "what answers is no Docker engine", cause);
    }
  }

  #negotiate(): Promise<string> {
    this.#prefix ??= this.version().then(
      ({ ApiVersion: newest, MinAPIVersion: oldest }) => `/v${chooseApi(String(newest), String(oldest))}`,
    );
    return this.#prefix.catch((thrown: unknown) => {
      this.#prefix = null;
      throw thrown;
    });
  }

  async #send(call: DockerCall): Promise<IncomingMessage> {
    try {
      return await this.#sendOnce(call);
    } catch (thrown) {
      if (!(thrown instanceof StaleConnection) || call.body !== undefined) throw this.#told(thrown, call);
    }
    return this.#sendOnce(call).catch((thrown: unknown) => {
      throw this.#told(thrown, call);
    });
  }

  #sendOnce(call: DockerCall): Promise<IncomingMessage> {
    const query = call.query === undefined ? "" : `?${new URLSearchParams(call.query).toString()}`;
    const sent = request({
      socketPath: this.socket,
      agent: this.#agent,
      method: call.method ?? "GET",
      path: `${call.path}${query}`,
      headers: { host: "docker", ...(call.body && { "content-type": "application/x-tar" }) },
      timeout: call.idleMs ?? IDLE_MS,
    });
    return answerTo(sent, call);
  }

  #told(thrown: unknown, call: DockerCall): Error {
    const code = codeOf(thrown);
    if (code === "ENOENT") return new NoEngine(`no ${this.socket}`);
    if (code === "ECONNREFUSED") return new NoEngine(`connection refused at ${this.socket}`);
    if (code !== "EACCES") return unavailable(call, messageOf(thrown), thrown);
    return new OperatorError({
      exit: "unavailable",
      what: `This user may not open ${this.socket}.`,
      remedy: "Run as root.",
      cause: thrown,
    });
  }
}

/** A kept connection that the engine had closed meanwhile: the call never reached it. */
class StaleConnection extends Error {}

/** The API version to speak: the newest that both sides know. */
export function chooseApi(newest: string, oldest: string): string {
  if (isAtLeast(NEWEST_API, newest)) return newest;
  return isAtLeast(NEWEST_API, oldest) ? NEWEST_API : oldest;
}

/** Reads a body to its end; throws an OperatorError (`unavailable`) when it breaks off or is too large. */
async function readBody(
  answer: IncomingMessage,
  call: DockerCall,
  maxBytes = MAX_BODY_BYTES,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of answer as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > maxBytes) break;
      chunks.push(chunk);
    }
  } catch (cause) {
    throw unavailable(call, messageOf(cause), cause);
  }
  return Buffer.concat(chunks);
}

function answerTo(sent: ClientRequest, { body, idleMs = IDLE_MS }: DockerCall): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    let answer: IncomingMessage | undefined;
    sent.on("response", (response) => {
      answer = response;
      resolve(response);
    });
    sent.on("error", (thrown) => {
      const stale = sent.reusedSocket && codeOf(thrown) === "ECONNRESET";
      reject(stale ? new StaleConnection("the connection was closed", { cause: thrown }) : thrown);
    });
    sent.on("timeout", () => {
      (answer ?? sent).destroy(new Error(`no sign of life for ${Math.round(idleMs / 1000)} s`));
    });
    if (body === undefined) sent.end();
    else pipeline(body, sent).catch(reject);
  });
}

function reasonIn(body: string): string | null {
  try {
    const { message } = JSON.parse(body) as { readonly message?: unknown };
    return typeof message === "string" ? message : null;
  } catch {
    return null;
  }
}

function unavailable(call: DockerCall, why: string, cause?: unknown): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `Docker does not do ${call.method ?? "GET"} ${call.path}.`,
    why,
    remedy: "Look at `journalctl -u docker -n 50`, then run again.",
    cause,
  });
}
