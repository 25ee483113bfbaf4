import type { Socket } from "node:net";
import { Readable } from "node:stream";
import { rootCertificates } from "node:tls";
import type { buildConnector, Client, Dispatcher } from "undici";
import { messageOf } from "../errors.ts";
import { codeOf } from "./file-errors.ts";

/** The address of a server, and how to connect to it. */
export interface HttpServer {
  /** Scheme, host, port, and a prefix for the path of every request. */
  readonly url: string;
  /** The maximum number of connections. */
  readonly connections: number;
  readonly connectTimeoutMs: number;
  /** True: every request uses a new connection, which is closed afterwards. */
  readonly fresh?: boolean;
  /** The proxy through which the requests go, as `proxyFor` gives it. */
  readonly proxy?: string | null;
  /** A unix socket instead of host and port. */
  readonly socketPath?: string | null;
  /** PEM of an authority that is trusted for this server, too. */
  readonly ca?: string | undefined;
  /** Aborts all requests, with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** One request. Redirects are not followed. */
export interface HttpRequest {
  readonly method: "GET" | "POST" | "DELETE";
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | Readable;
  /** The longest time without data from the server (undici's precision is about a second). Default: no limit. */
  readonly silenceMs?: number;
  /** True if it is never sent twice: a first copy, whose answer got lost, could have its effect later. */
  readonly isOnce?: boolean;
}

/** A complete answer. */
export interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Trailers by lower-case name. A trailer that was sent more than once is a list. */
export type Trailers = Readonly<Record<string, string | string[] | undefined>>;

/** Receives an answer's body in parts. If it throws, the request is aborted and throws the same error. */
export interface Receiver<T> {
  /** While a returned promise is pending, no more data is read (back-pressure). */
  take(part: Buffer): void | Promise<void>;
  /** Called only if the answer is complete. */
  end(trailers: Trailers): T | Promise<T>;
}

/** Creates the receiver of an answer, from its status. */
export type Receive<T> = (status: number) => Receiver<T>;

/** A request whose body is streamed. */
export interface OpenRequest {
  write(part: Uint8Array): void;
  /** Sends the rest of the body and reads the complete answer. Throws an HttpFailure; does not retry. */
  finish(rest: readonly Uint8Array[]): Promise<Answer>;
  /** Closes the connection if the request was not sent completely, so that the server does not process it. */
  abandon(): void;
}

/** There was no complete answer. The error never contains the request's headers. */
export class HttpFailure extends Error {
  /** The error code of the system or of undici. Empty if there is none. */
  get code(): string {
    return codeOf(this.cause) ?? "";
  }
}

/** The server closed a kept-alive connection before it answered. The request can be sent again. */
export class StaleConnection extends HttpFailure {}

/** The deadline of a request has passed. */
export class DeadlinePassed extends HttpFailure {}

/** The body of the answer exceeds the limit. The rest is not read. */
export class AnswerTooLong extends HttpFailure {
  readonly status: number;

  constructor(status: number, maxBytes: number) {
    super(`the answer is longer than ${maxBytes} bytes`);
    this.status = status;
  }
}

/** The error codes of a kept-alive connection that the server has closed. */
const STALE: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE", "UND_ERR_SOCKET"]);

/** The state of one connection of a pool. */
interface Connection {
  socket: Socket | null;
  /** The number of answers received over it. */
  answers: number;
  /** While true, no data is read from it. */
  paused: boolean;
}

/** A client of one server. A request is sent again if its kept-alive connection turns out to be closed, unless it is `isOnce`. */
export class HttpClient {
  readonly #server: HttpServer;
  readonly #basePath: string;
  readonly #onAbort = (): void => this.close(this.#server.signal?.reason);
  #pool: Promise<Dispatcher> | null = null;
  #closed: Error | null = null;

  constructor(server: HttpServer) {
    this.#server = server;
    this.#basePath = new URL(server.url).pathname.replace(/\/$/, "");
    if (server.signal?.aborted === true) this.#onAbort();
    else server.signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  /**
   * Sends a request and passes its answer to a receiver. `deadlineMs` limits the whole exchange; 0 means no limit. Throws
   * an HttpFailure, or the receiver's error.
   */
  async exchange<T>(request: HttpRequest, receive: Receive<T>, deadlineMs = 0): Promise<T> {
    for (;;) {
      try {
        return await within(deadlineMs, this.#start(request, receive));
      } catch (cause) {
        if (!(cause instanceof StaleConnection) || request.isOnce === true) throw cause;
      }
    }
  }

  /** Starts a request. `deadlineMs` limits the time from the end of its body to the last byte of the answer. */
  open(
    request: Omit<HttpRequest, "body">,
    { maxBytes, deadlineMs }: { maxBytes: number; deadlineMs: number },
  ): OpenRequest {
    const body = new Readable({ read: () => {} });
    const exchange = this.#start({ ...request, body }, readWhole(maxBytes));
    // After abandon() nobody waits for the answer, so its rejection must be handled here.
    exchange.answer.catch(() => {});
    let sent = false;
    return {
      write: (part) => void body.push(part),
      finish(rest) {
        sent = true;
        for (const part of rest) body.push(part);
        body.push(null);
        return within(deadlineMs, exchange);
      },
      abandon() {
        if (!sent) exchange.abort(new HttpFailure("the request was abandoned"));
      },
    };
  }

  /** Closes the connections. Running requests fail with the reason. */
  close(reason?: unknown): void {
    this.#server.signal?.removeEventListener("abort", this.#onAbort);
    const closed = reason instanceof Error ? reason : new Error("the client was closed");
    this.#closed ??= closed;
    // If the pool could not be created, there is nothing to close, and its requests have already failed.
    this.#pool?.then(
      (pool) => void pool.destroy(closed),
      () => {},
    );
  }

  #start<T>(request: HttpRequest, receive: Receive<T>): Exchange<T> {
    const { origin } = new URL(this.#server.url);
    const exchange = new Exchange({ ...request, origin, path: this.#basePath + request.path }, receive);
    this.#pool ??= openPool(this.#server);
    this.#pool.then(
      (pool) => {
        if (this.#closed === null) pool.dispatch(exchange, exchange);
        else exchange.abort(new HttpFailure(this.#closed.message, { cause: this.#closed }));
      },
      (cause: unknown) => exchange.abort(cause),
    );
    return exchange;
  }
}

function trustOf(ca: string | undefined): { readonly ca?: string[] } {
  return ca === undefined ? {} : { ca: [...rootCertificates, ca] };
}

/** undici is loaded with the first request, since most runs of the program send none. */
async function openPool(server: HttpServer): Promise<Dispatcher> {
  const { default: undici } = await import("undici");
  const { connections, connectTimeoutMs, fresh = false, socketPath = null, ca, proxy = null } = server;
  if (proxy !== null) {
    // Every request has a connection of its own: only our own clients know whether a kept one is stale.
    return new undici.ProxyAgent({
      uri: proxy,
      proxyTunnel: false,
      connections,
      pipelining: 0,
      headersTimeout: 0,
      bodyTimeout: 0,
      proxyTls: { timeout: connectTimeoutMs },
      requestTls: { timeout: connectTimeoutMs, ...trustOf(ca) },
    });
  }
  return new undici.Pool(new URL(server.url).origin, {
    connections,
    pipelining: fresh ? 0 : 1,
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: {
      timeout: connectTimeoutMs,
      ...(socketPath === null ? {} : { socketPath }),
      ...trustOf(ca),
    },
    factory: (origin, options) => openConnection(undici.Client, origin, options),
  });
}

/** Creates a client with one connection, and gives each exchange a reference to that connection. */
function openConnection(Make: typeof Client, origin: URL, options: Client.Options): Client {
  const connection: Connection = { socket: null, answers: 0, paused: false };
  const connect = options.connect as buildConnector.connector;
  const client = new Make(origin, {
    ...options,
    connect(target, callback) {
      connect(target, (error, socket) => {
        if (error !== null) return callback(error, null);
        Object.assign(connection, { socket, answers: 0, paused: false });
        const read = socket.read.bind(socket);
        socket.read = (size) => (connection.paused ? null : (read(size) as unknown));
        return callback(null, socket);
      });
    },
  });
  const dispatch = client.dispatch.bind(client);
  client.dispatch = (request, handler) => {
    if (request instanceof Exchange) request.connection = connection;
    return dispatch(request, handler);
  };
  return client;
}

/** A running request: it is undici's dispatch options and its handler. */
class Exchange<T> implements Dispatcher.DispatchOptions, Dispatcher.DispatchHandler {
  readonly origin: string;
  readonly method: HttpRequest["method"];
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | Readable | null;
  readonly headersTimeout: number;
  readonly bodyTimeout: number;
  readonly answer: Promise<T>;
  connection: Connection | null = null;
  readonly #receive: Receive<T>;
  #resolve: (answer: T | Promise<T>) => void = () => {};
  #reject: (reason: unknown) => void = () => {};
  #controller: Dispatcher.DispatchController | null = null;
  #receiver: Receiver<T> | null = null;
  #busy: Promise<void> | null = null;
  #isReused = false;
  #isOver = false;

  constructor(request: HttpRequest & { readonly origin: string }, receive: Receive<T>) {
    this.origin = request.origin;
    this.method = request.method;
    this.path = request.path;
    this.headers = request.headers ?? {};
    this.body = request.body ?? null;
    this.headersTimeout = this.bodyTimeout = request.silenceMs ?? 0;
    this.#receive = receive;
    this.answer = new Promise<T>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Aborts the request unless it has ended. Its answer rejects with this reason. */
  abort(reason: unknown): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#reject(reason);
    this.#controller?.abort(new Error("aborted"));
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    this.#isReused = (this.connection?.answers ?? 0) > 0;
    if (this.#isOver) controller.abort(new Error("aborted"));
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number): void {
    // A status below 200 is interim: the final answer follows.
    if (!this.#isOver && status >= 200) this.#receiver = this.#receive(status);
  }

  onResponseData(_controller: Dispatcher.DispatchController, part: Buffer): void {
    if (this.#isOver) return;
    // Data that was read before the pause is delivered later, in order.
    if (this.#busy !== null) return this.#wait(this.#busy.then(() => this.#take(part)));
    try {
      const pending = this.#take(part);
      if (pending !== undefined) this.#wait(pending);
    } catch (thrown) {
      this.abort(thrown);
    }
  }

  onResponseEnd(_controller: Dispatcher.DispatchController, trailers: Trailers): void {
    if (this.connection !== null) this.connection.answers += 1;
    const end = async (): Promise<void> => {
      await this.#busy;
      const receiver = this.#receiver;
      if (this.#isOver || receiver === null) return;
      this.#isOver = true;
      this.#resolve(receiver.end(trailers));
    };
    end().catch(this.#reject);
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const code = codeOf(error) ?? "";
    const stale = this.#isReused && this.#receiver === null && STALE.has(code);
    if (stale) this.#reject(new StaleConnection("a kept-alive connection was closed", { cause: error }));
    else this.#reject(new HttpFailure(this.#whyFailed(error, code), { cause: error }));
  }

  /**
   * Pauses the socket, not undici's parser: undici 7 throws an AssertionError in an event if a paused connection is reset
   * or ends (https://github.com/nodejs/undici/issues/5360, only fixed in undici 8).
   */
  #wait(pending: Promise<void>): void {
    const { connection } = this;
    const socket = connection?.socket;
    if (connection !== null) connection.paused = true;
    const busy = pending
      .catch((thrown: unknown) => this.abort(thrown))
      .then(() => {
        if (this.#busy !== busy) return;
        this.#busy = null;
        if (connection === null || connection.socket !== socket) return;
        connection.paused = false;
        socket?.emit("readable");
      });
    this.#busy = busy;
  }

  #take(part: Buffer): void | Promise<void> {
    return this.#isOver ? undefined : this.#receiver?.take(part);
  }

  #whyFailed(error: Error, code: string): string {
    if (code === "UND_ERR_HEADERS_TIMEOUT" || code === "UND_ERR_BODY_TIMEOUT")
      return `no data for ${Math.round(this.bodyTimeout / 1000)} s`;
    return messageOf(error) || code;
  }
}

async function within<T>(deadlineMs: number, exchange: Exchange<T>): Promise<T> {
  if (deadlineMs === 0) return exchange.answer;
  let last: NodeJS.Immediate | undefined;
  const timer = setTimeout(() => {
    // Sockets are read before an immediate runs: an answer that came while this process was busy is not late.
    last = setImmediate(() => exchange.abort(new DeadlinePassed(`no answer within ${deadlineMs / 1000} s`)));
  }, deadlineMs);
  try {
    return await exchange.answer;
  } finally {
    clearTimeout(timer);
    clearImmediate(last);
  }
}

/** Reads a complete answer. A longer answer than `maxBytes` aborts the request. */
export function readWhole(maxBytes: number): Receive<Answer> {
  return (status) => {
    const parts: Buffer[] = [];
    let sizeBytes = 0;
    return {
      take(part) {
        sizeBytes += part.length;
        if (sizeBytes > maxBytes) throw new AnswerTooLong(status, maxBytes);
        parts.push(part);
      },
      end: () => ({ status, text: Buffer.concat(parts).toString("utf8") }),
    };
  };
}

/** Parses JSON. Null if the text is not JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}
