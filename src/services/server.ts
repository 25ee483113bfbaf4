import { getRequestListener, type HttpBindings, RequestError } from "@hono/node-server";
import { type Context, Hono } from "hono";
import { createHash } from "node:crypto";
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";
import { readBearer } from "../accounts/api-key.ts";
import { isLiveKey } from "../accounts/usage.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { messageOf, OperatorError } from "../errors.ts";

/** A service's routes; each handler gets node's own request and response in `env`. */
export type App = Hono<{ Bindings: HttpBindings }>;

/** One request, as handlers get it. */
export type Call = Context<{ Bindings: HttpBindings }>;

/** A service, ready to be served. */
export interface Service {
  /** `pinning-api`: how messages call it. */
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly app: App;
  /** Lines for the log, after the one that gives the address. */
  readonly notes?: readonly string[];
  /** How long requests in progress may take after the stop. */
  readonly graceMs?: number;
  /** How long one request may take to arrive in full. */
  readonly requestTimeoutMs?: number;
  /** Closes what the service works with; called once it has stopped, or could not start. */
  readonly close: () => Promise<void>;
}

/** What every service is served with. */
export interface ServiceContext {
  /** Aborted on SIGTERM or SIGINT. */
  readonly stop: AbortSignal;
  /** One line of the service's log. */
  readonly log: (line: string) => void;
  readonly version: string;
}

/** A server that listens. */
export interface RunningServer {
  readonly port: number;
  /** Resolves once the last connection is closed after the stop. */
  readonly stopped: Promise<void>;
}

const GRACE_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
const BODY_TIMEOUT_MS = 5_000;

/**
 * Serves until the stop, then closes the service. A database or cluster that is away at the start is no reason to exit:
 * the service says so in its log and in /health, and works once they are back. A process that exits would only be
 * restarted, ever more slowly, without its healthcheck naming the cause.
 */
export async function runService(service: Service, context: ServiceContext): Promise<void> {
  const { log, version } = context;
  const { name, host } = service;
  try {
    const server = await startServer(service, context);
    log(`${name} ${version} listens on ${host}:${server.port}`);
    for (const note of service.notes ?? []) log(note);
    await server.stopped;
    log(`${name} has stopped`);
  } finally {
    await service.close();
  }
}

/**
 * Listens, and on the stop accepts nothing more, lets requests in progress finish for the grace period,
 * then closes their connections. Throws an OperatorError (`preflight`) if the address cannot be used.
 */
export async function startServer(
  service: Omit<Service, "close" | "notes">,
  { stop, log }: Pick<ServiceContext, "stop" | "log">,
): Promise<RunningServer> {
  const { app, graceMs = GRACE_MS, requestTimeoutMs: requestTimeout = REQUEST_TIMEOUT_MS } = service;
  const inProgress = new Set<ServerResponse>();
  const server = createServer({ requestTimeout }, (incoming, outgoing) => {
    inProgress.add(outgoing);
    outgoing.once("close", () => inProgress.delete(outgoing));
    if (stop.aborted) announceEnd(outgoing);
    void dispatch(app, incoming, outgoing, log);
  });
  await listen(server, service);
  const { port } = server.address() as AddressInfo;
  return { port, stopped: closeOn(stop, server, inProgress, graceMs) };
}

/**
 * An app without routes. Routes match the path as it was sent: neither decoded nor with its dots resolved.
 * `failed` answers for a route that threw; the client should learn no detail.
 */
export function createApp(options: {
  readonly notFound: (call: Call, path: string) => Response;
  readonly failed: (call: Call, thrown: Error, path: string) => Response;
}): App {
  const app: App = new Hono({ getPath: (_request, { env }: { env?: HttpBindings } = {}) => pathOf(env) });
  app.notFound((call) => options.notFound(call, pathOf(call.env)));
  app.onError((thrown, call) => options.failed(call, thrown, pathOf(call.env)));
  return app;
}

function pathOf(bindings: HttpBindings | undefined): string {
  return bindings?.incoming.url?.split("?", 1)[0] ?? "/";
}

/** An answer in JSON. */
export function json(
  status: number,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): Response {
  const text = `${JSON.stringify(body)}\n`;
  return new Response(text, {
    status,
    headers: {
      "content-type": "application/json; charset=utf-8",
      "content-length": String(Buffer.byteLength(text)),
      "cache-control": "no-store",
      ...headers,
    },
  });
}

/** An error in JSON: `code` is for programs, `error` for people. */
export function failure(
  status: number,
  code: string,
  error: string,
  more: Readonly<Record<string, unknown>> = {},
  headers: Readonly<Record<string, string>> = {},
): Response {
  return json(status, { error, code, ...more }, headers);
}

/**
 * Reads a JSON body of at most so many bytes, or gives the answer to one that cannot be taken. Never keeps more than that
 * in memory: a longer body is refused by its declared length, or as soon as it is longer. A body that arrives too slowly
 * is refused, too.
 */
export async function readJson(
  incoming: IncomingMessage,
  { maxBytes, timeoutMs = BODY_TIMEOUT_MS }: { readonly maxBytes: number; readonly timeoutMs?: number },
): Promise<{ readonly json: unknown } | Response> {
  if (!/^application\/json *(?:;|$)/i.test(incoming.headers["content-type"] ?? ""))
    return refuseBody(415, "The body must be application/json.");
  const declared = Number(incoming.headers["content-length"] ?? 0);
  const bytes = declared > maxBytes ? "too long" : await collect(incoming, maxBytes, timeoutMs);
  if (bytes === "too long") return refuseBody(413, `The body must not be longer than ${maxBytes} bytes.`);
  if (bytes === "too slow")
    return refuseBody(408, `The body did not come within ${timeoutMs / 1000} seconds.`);
  try {
    return { json: JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as unknown };
  } catch {
    return refuseBody(400, "The body is no JSON in UTF-8.");
  }
}

function collect(
  incoming: IncomingMessage,
  maxBytes: number,
  timeoutMs: number,
): Promise<Buffer | "too long" | "too slow"> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const end = (result: Buffer | "too long" | "too slow"): void => {
      clearTimeout(timer);
      incoming.off("data", take).off("end", finish).off("error", fail).off("close", abandon);
      if (typeof result === "string") incoming.pause();
      resolve(result);
    };
    const take = (chunk: Buffer): void => {
      size += chunk.length;
      if (size > maxBytes) end("too long");
      else chunks.push(chunk);
    };
    const finish = (): void => end(Buffer.concat(chunks));
    const fail = (error: Error): void => {
      clearTimeout(timer);
      reject(error);
    };
    const abandon = (): void => fail(new Error("the client went away before its body was complete"));
    const timer = setTimeout(() => end("too slow"), timeoutMs);
    incoming.on("data", take).on("end", finish).on("error", fail).on("close", abandon);
  });
}

/** The rest of a refused body would otherwise be read as the next request. */
function refuseBody(status: number, error: string): Response {
  return json(status, { error }, { connection: "close" });
}

/**
 * Passes a request to the app. The adapter by itself answers 400 to a Host or target that it can make no URL of; no route
 * uses that URL, so such a request is routed by its method and path like any other. The adapter may not read
 * on after an answer either: what happens to the rest of a body is up to the handler.
 */
function dispatch(
  app: App,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  log: (line: string) => void,
): Promise<void> {
  const { method = "GET" } = incoming;
  const errorHandler = (thrown: unknown): Response | Promise<Response> => {
    if (thrown instanceof RequestError) {
      // A Request may not be a TRACE; nothing answers to OPTIONS either.
      const request = new Request("http://localhost/", { method: method === "TRACE" ? "OPTIONS" : method });
      return app.fetch(request, { incoming, outgoing });
    }
    // Errors are the app's own; this was thrown without being one.
    log(`${method} failed: ${messageOf(thrown)}`);
    return json(500, { error: "The request failed; the service's log says why." });
  };
  return getRequestListener(app.fetch, { autoCleanupIncoming: false, errorHandler })(incoming, outgoing);
}

function listen(
  server: Server,
  { name, host, port }: Pick<Service, "name" | "host" | "port">,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const refuse = (error: NodeJS.ErrnoException): void => reject(explain(error, name, host, port));
    server.once("error", refuse);
    server.listen({ host, port }, () => {
      server.off("error", refuse);
      resolve();
    });
  });
}

async function closeOn(
  stop: AbortSignal,
  server: Server,
  inProgress: ReadonlySet<ServerResponse>,
  graceMs: number,
): Promise<void> {
  if (!stop.aborted) {
    await new Promise<void>((resolve) => {
      stop.addEventListener("abort", () => resolve(), { once: true });
    });
  }
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  for (const response of inProgress) announceEnd(response);
  const cutOff = setTimeout(() => server.closeAllConnections(), graceMs);
  await closed;
  clearTimeout(cutOff);
}

/** Otherwise the client would keep the connection for a next request, and the stop would wait for it. */
function announceEnd(response: ServerResponse): void {
  if (!response.headersSent) response.setHeader("connection", "close");
}

function explain(error: NodeJS.ErrnoException, name: string, host: string, port: number): OperatorError {
  const address = `${host}:${port}`;
  if (error.code === "EADDRINUSE") {
    return new OperatorError({
      exit: "preflight",
      what: `${name} can't listen on ${address}: port ${port} is taken.`,
      why: "Another process listens there already.",
      remedy: `Find it with \`ss -ltnp 'sport = :${port}'\` and stop it, or give ${name} another port.`,
      cause: error,
    });
  }
  return new OperatorError({
    exit: "preflight",
    what: `${name} can't listen on ${address}: ${messageOf(error)}.`,
    remedy: "Check the address and the port in the settings.",
    cause: error,
  });
}

/** What the database knows a request's bearer token by: hex sha256. Null where the request has none. */
export function keyHashOf({ authorization }: IncomingHttpHeaders): string | null {
  const token = readBearer(authorization);
  return token === null ? null : createHash("sha256").update(token).digest("hex");
}

/** True if the request carries an API key that is not revoked. */
export async function hasApiKey(
  pool: Pick<PostgresPool, "query">,
  headers: IncomingHttpHeaders,
): Promise<boolean> {
  const hash = keyHashOf(headers);
  return hash !== null && isLiveKey(pool, hash);
}

/** The answer to a request without a live API key. */
export function unauthorized(): Response {
  const error = "An API key is needed: Authorization: Bearer KEY.";
  return json(401, { error }, { "www-authenticate": "Bearer" });
}
