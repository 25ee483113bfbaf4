import type { Socket } from "node:net";
import { Readable } from "node:stream";
import type { buildConnector, Client, Dispatcher, Pool } from "undici";
import { messageOf } from "../errors.ts";
import { codeOf } from "./file-errors.ts";

/** Where a server is, and how its connections are kept. */
export interface HttpServer {
  /** Scheme, host and port, and a path that goes before every request's. */
  readonly url: string;
  /** Connections at once. */
  readonly connections: number;
  readonly connectTimeoutMs: number;
  /** True: every request has a new connection, which is closed after it. */
  readonly fresh?: boolean;
  /** A unix socket instead of host and port. */
  readonly socketPath?: string | null;
  /** PEM of the authority that signed the server's certificate, where the system does not know it. */
  readonly ca?: string | undefined;
  /** Ends everything that is under way, with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** One request. No redirect is followed. */
export interface HttpRequest {
  readonly method: "GET" | "POST" | "DELETE";
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | Readable;
  /** Longest silence of the server (undici measures it to a second or so). Left out: any. */
  readonly silenceMs?: number;
}

/** An answer, read whole. */
export interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Trailers by their lower-case name; one that was sent more than once is a list. */
export type Trailers = Readonly<Record<string, string | string[] | undefined>>;

/** Takes an answer's body as it comes. What it throws ends the request, and is thrown by it. */
export interface Receiver<T> {
  /** While a promise is pending the server is made to wait. */
  take(part: Buffer): void | Promise<void>;
  /** Called only when the answer came whole. */
  end(trailers: Trailers): T | Promise<T>;
}

/** Makes the receiver of an answer, from its status. */
export type Receive<T> = (status: number) => Receiver<T>;

/** A request whose body is sent as it comes. */
export interface OpenRequest {
  write(part: Uint8Array): void;
  /** Sends the last of the body and reads the whole answer; throws an HttpFailure, and does not repeat. */
  finish(rest: readonly Uint8Array[]): Promise<Answer>;
  /** Cuts the connection of a request that was not sent whole: the server never sees its end. */
  abandon(): void;
}

/** No answer came, or not all of it. The request's headers are not in it. */
export class HttpFailure extends Error {
  /** What the system or undici calls it; empty where it has no name. */
  get code(): string {
    return codeOf(this.cause) ?? "";
  }
}

/** The server had closed a kept connection before it answered: the request can be sent again. */
export class StaleConnection extends HttpFailure {}

/** The deadline of a request has passed. */
export class DeadlinePassed extends HttpFailure {}

/** An answer with a body beyond the bound; the rest of it is not read. */
export class AnswerTooLong extends HttpFailure {
  readonly status: number;

  constructor(status: number, maxBytes: number) {
    super(`the answer is longer than ${maxBytes} bytes`);
    this.status = status;
  }
}

/** How a connection ends that the server had closed while it was kept. */
const STALE: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE", "UND_ERR_SOCKET"]);

/** One connection of a pool, as it is now. */
interface Connection {
  socket: Socket | null;
  /** Answers that came over it. */
  answers: number;
  /** Nothing more is read from it. */
  held: boolean;
}

/**
 * A client of one server, with kept connections; it opens none before the first request. Every request must be safe to
 * repeat: one that met the end of a kept connection is sent again.
 */
export class HttpClient {
  readonly #server: HttpServer;
  readonly #basePath: string;
  readonly #onAbort = (): void => this.close(this.#server.signal?.reason);
  #pool: Promise<Pool> | null = null;
  #closed: Error | null = null;

  constructor(server: HttpServer) {
    this.#server = server;
    this.#basePath = new URL(server.url).pathname.replace(/\/$/, "");
    if (server.signal?.aborted === true) this.#onAbort();
    else server.signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  /**
   * Sends a request, and has a receiver read its answer; `deadlineMs` bounds it all, 0 does not. Throws an HttpFailure,
   * or what the receiver throws.
   */
  async exchange<T>(request: HttpRequest, receive: Receive<T>, deadlineMs = 0): Promise<T> {
    for (;;) {
      try {
        return await within(deadlineMs, this.#start(request, receive));
      } catch (cause) {
        if (!(cause instanceof StaleConnection)) throw cause;
      }
    }
  }

  /** Begins a request; `deadlineMs` bounds the time from the end of its body to the answer's last byte. */
  open(
    request: Omit<HttpRequest, "body">,
    { maxBytes, deadlineMs }: { maxBytes: number; deadlineMs: number },
  ): OpenRequest {
    const body = new Readable({ read: () => {} });
    const exchange = this.#start({ ...request, body }, readWhole(maxBytes));
    // Whoever abandons a request no longer waits for its answer.
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

  /** Closes the connections; what is under way fails with the reason. */
  close(reason?: unknown): void {
    this.#server.signal?.removeEventListener("abort", this.#onAbort);
    const closed = reason instanceof Error ? reason : new Error("the client was closed");
    this.#closed ??= closed;
    // A pool that could not be opened has nothing to close; every request of it has failed with the reason.
    this.#pool?.then(
      (pool) => void pool.destroy(closed),
      () => {},
    );
  }

  #start<T>(request: HttpRequest, receive: Receive<T>): Exchange<T> {
    const exchange = new Exchange({ ...request, path: this.#basePath + request.path }, receive);
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

/** undici is loaded with the first request: most runs of the program send none. */
async function openPool(server: HttpServer): Promise<Pool> {
  const { default: undici } = await import("undici");
  const { connections, connectTimeoutMs, fresh = false, socketPath = null, ca } = server;
  return new undici.Pool(new URL(server.url).origin, {
    connections,
    pipelining: fresh ? 0 : 1,
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: {
      timeout: connectTimeoutMs,
      ...(socketPath === null ? {} : { socketPath }),
      ...(ca === undefined ? {} : { ca }),
    },
    factory: (origin, options) => openConnection(undici.Client, origin, options),
  });
}

/** One connection at a time; each exchange learns on which it is. */
function openConnection(Make: typeof Client, origin: URL, options: Client.Options): Client {
  const connection: Connection = { socket: null, answers: 0, held: false };
  const connect = options.connect as buildConnector.connector;
  const client = new Make(origin, {
    ...options,
    connect(target, callback) {
      connect(target, (error, socket) => {
        if (error !== null) return callback(error, null);
        Object.assign(connection, { socket, answers: 0, held: false });
        const read = socket.read.bind(socket);
        socket.read = (size) => (connection.held ? null : (read(size) as unknown));
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

/** A request on its way: what undici sends, and what it reports to. */
class Exchange<T> implements Dispatcher.DispatchOptions, Dispatcher.DispatchHandler {
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
  #kept = false;
  #over = false;

  constructor(request: HttpRequest, receive: Receive<T>) {
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

  /** Ends it, unless it has ended: its answer is rejected for this reason. */
  abort(reason: unknown): void {
    if (this.#over) return;
    this.#over = true;
    this.#reject(reason);
    this.#controller?.abort(new Error("given up"));
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    this.#kept = (this.connection?.answers ?? 0) > 0;
    if (this.#over) controller.abort(new Error("given up"));
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number): void {
    // Below 200 the answer is still to come.
    if (!this.#over && status >= 200) this.#receiver = this.#receive(status);
  }

  onResponseData(_controller: Dispatcher.DispatchController, part: Buffer): void {
    if (this.#over) return;
    // What had been read when it was held is taken later, in order.
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
      if (this.#over || receiver === null) return;
      this.#over = true;
      this.#resolve(receiver.end(trailers));
    };
    end().catch(this.#reject);
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (this.#over) return;
    this.#over = true;
    const code = codeOf(error) ?? "";
    const stale = this.#kept && this.#receiver === null && STALE.has(code);
    if (stale) this.#reject(new StaleConnection("a kept connection was closed", { cause: error }));
    else this.#reject(new HttpFailure(this.#whyFailed(error, code), { cause: error }));
  }

  /**
   * The socket is held, not undici's parser: undici 7 throws an AssertionError out of an event when a paused connection
   * is reset or ends (https://github.com/nodejs/undici/issues/5360, repaired in undici 8 only).
   */
  #wait(pending: Promise<void>): void {
    const { connection } = this;
    const socket = connection?.socket;
    if (connection !== null) connection.held = true;
    const busy = pending
      .catch((thrown: unknown) => this.abort(thrown))
      .then(() => {
        if (this.#busy !== busy) return;
        this.#busy = null;
        if (connection === null || connection.socket !== socket) return;
        connection.held = false;
        socket?.emit("readable");
      });
    this.#busy = busy;
  }

  #take(part: Buffer): void | Promise<void> {
    return this.#over ? undefined : this.#receiver?.take(part);
  }

  #whyFailed(error: Error, code: string): string {
    if (code === "UND_ERR_HEADERS_TIMEOUT" || code === "UND_ERR_BODY_TIMEOUT")
      return `no data for ${Math.round(this.bodyTimeout / 1000)} s`;
    return messageOf(error) || code;
  }
}

async function within<T>(deadlineMs: number, exchange: Exchange<T>): Promise<T> {
  if (deadlineMs === 0) return exchange.answer;
  const timer = setTimeout(() => {
    exchange.abort(new DeadlinePassed(`no answer within ${deadlineMs / 1000} s`));
  }, deadlineMs);
  try {
    return await exchange.answer;
  } finally {
    clearTimeout(timer);
  }
}

/** Reads an answer whole; one that is longer than so many bytes ends its request. */
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

/** The value of a JSON text; null for what is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}
