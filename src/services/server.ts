import { getRequestListener, type HttpBindings, RequestError } from "@hono/node-server";
import { type Context, Hono } from "hono";
import { routePath } from "hono/route";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type Log, messageOf, OperatorError } from "../errors.ts";
import { networkOf } from "./rate-limit.ts";
import { boundArrival, type OnRequest, refuseWithoutHost, requestIdOn, watchRequests } from "./requests.ts";

/** A service's routes. Each handler gets node's request and response in `env`. */
export type App = Hono<{ Bindings: HttpBindings }>;

/** One request, as handlers get it. */
export type Call = Context<{ Bindings: HttpBindings }>;

/** A service, ready to be served. */
export interface Service {
  /** The name in messages: `pinning-api`. */
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly app: App;
  /** A second listener of the service, for requests from outside the machine. */
  readonly edge?: { readonly host: string; readonly port: number; readonly app: App };
  /** Its metrics: the port on 127.0.0.1, and what else is measured besides requests. */
  readonly metrics?: { readonly port: number; readonly gauges: readonly GaugeSource[] };
  /** Lines for the log, printed after the line with the address. */
  readonly notes?: readonly string[];
  /** The body for a request that is not HTTP, or has a head that is too large or too slow. */
  readonly describeUnread?: (reason: string, details: string) => unknown;
  /** How long requests in progress may take after the stop. */
  readonly graceMs?: number;
  /** How long one request may take to arrive in full. */
  readonly requestTimeoutMs?: number;
  /** A path whose requests may take longer to arrive. */
  readonly slowRoute?: { readonly path: string; readonly timeoutMs: number };
  /** How long the head of a request may take to arrive. */
  readonly headTimeoutMs?: number;
  /** How many connections may be open. One address gets at most half of them. */
  readonly maxConnections?: number;
  /** Closes the service's connections. Called once it has stopped or failed to start. */
  readonly close: () => Promise<void>;
}

/** A number of the service that is known without asking anybody. */
export interface GaugeSource {
  /** `fula_pin_queue_requests`. */
  readonly name: string;
  readonly help: string;
  /** The name of its label, if `read` returns several numbers by the value of that label. */
  readonly label?: string;
  /** Called at each scrape: it must only read what is in memory. */
  read(): number | Readonly<Record<string, number>>;
}

/** What every service needs to run. */
export interface ServiceContext {
  /** Aborted on SIGTERM or SIGINT. */
  readonly stop: AbortSignal;
  readonly log: Log;
  /** Gets each request once it has ended. */
  readonly onRequest?: OnRequest;
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
/** Node.js gives a minute, and looks every half a minute. */
const HEAD_TIMEOUT_MS = 10_000;
const CHECK_EVERY_MS = 1_000;
/** Far more than any service works on at once, and far less than the memory and the descriptors of a process allow. */
const MAX_CONNECTIONS = 1_024;
/** So one client that sends nothing can't keep all others out. A proxy on this machine is one address, too. */
const ADDRESS_SHARE = 1 / 2;

/**
 * Listens. After the stop, it accepts no new connections, lets requests in progress finish within the grace period,
 * then closes the connections that are left. Throws an OperatorError (`preflight`) if the address cannot be used.
 */
export async function startServer(
  service: Omit<Service, "close" | "notes" | "edge" | "metrics"> & { readonly isOutside?: boolean },
  { stop, log, onRequest = () => {} }: Pick<ServiceContext, "stop" | "log" | "onRequest">,
): Promise<RunningServer> {
  const { app, graceMs = GRACE_MS, requestTimeoutMs: requestTimeout = REQUEST_TIMEOUT_MS } = service;
  const { headTimeoutMs = HEAD_TIMEOUT_MS, maxConnections = MAX_CONNECTIONS } = service;
  const headersTimeout = Math.min(headTimeoutMs, requestTimeout);
  const connectionsCheckingInterval = Math.min(headersTimeout, CHECK_EVERY_MS);
  const inProgress = new Set<ServerResponse>();
  const { isOutside = false, describeUnread, slowRoute } = service;
  const longest = Math.max(requestTimeout, slowRoute?.timeoutMs ?? 0);
  const times = { requestTimeout: longest, headersTimeout, connectionsCheckingInterval };
  const options = { ...times, requireHostHeader: false };
  const server = createServer(options, (incoming, outgoing) => {
    inProgress.add(outgoing);
    outgoing.once("close", () => inProgress.delete(outgoing));
    if (stop.aborted) announceEnd(outgoing);
    if (slowRoute !== undefined && incoming.url !== slowRoute.path)
      boundArrival(server, incoming, requestTimeout);
    if (refuseWithoutHost(incoming, outgoing, describeUnread)) return;
    void dispatch(app, incoming, outgoing, log);
  });
  const routes = app.routes.map(({ path }) => path);
  watchRequests(server, { routes, isOutside, onRequest, ...(describeUnread && { describeUnread }) });
  server.maxConnections = maxConnections;
  shareConnections(server, Math.ceil(maxConnections * ADDRESS_SHARE));
  await listen(server, service);
  const { port } = server.address() as AddressInfo;
  return { port, stopped: closeOn(stop, server, inProgress, graceMs) };
}

/** Closes each new connection of an address that has `most` open already. The /64 of IPv6 is one address. */
function shareConnections(server: Server, most: number): void {
  const counts = new Map<string, number>();
  server.on("connection", (socket) => {
    const owner = networkOf(socket.remoteAddress ?? "unknown");
    const count = (counts.get(owner) ?? 0) + 1;
    if (count > most) {
      socket.destroy();
      return;
    }
    counts.set(owner, count);
    socket.once("close", () => {
      const left = (counts.get(owner) ?? 1) - 1;
      if (left > 0) counts.set(owner, left);
      else counts.delete(owner);
    });
  });
}

/**
 * Creates an app without routes. Routes match the path as it was sent: not decoded, and with its dots not resolved.
 * `failed` responds if a handler threw; do not give the client any detail.
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

/**
 * Refuses the other methods of every path under `prefix` that has a route: call it after the last one. A path that has a
 * route for all methods keeps it.
 */
export function refuseOtherMethods(
  app: App,
  refuse: (methods: string) => (call: Call) => Response | Promise<Response>,
  prefix = "/",
): void {
  const methods = new Map<string, Set<string>>();
  for (const { path, method } of app.routes)
    methods.set(path, (methods.get(path) ?? new Set<string>()).add(method));
  for (const [path, known] of methods)
    if (!known.has("ALL") && path.startsWith(prefix)) app.all(path, refuse([...known].join(", ")));
}

function pathOf(bindings: HttpBindings | undefined): string {
  return bindings?.incoming.url?.split("?", 1)[0] ?? "/";
}

/** Logs what a handler threw. The line has the pattern of the route: a path can contain anything. */
export function logFailure(log: Log, call: Call, thrown: Error): void {
  const { incoming, outgoing } = call.env;
  const line = `${incoming.method ?? "?"} ${routePath(call)} failed: ${messageOf(thrown)}`;
  log(line, "error", requestIdOn(outgoing));
}

/** A JSON response. */
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

/** A JSON error response: `code` is for programs, `error` for people. */
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
 * Passes a request to the app. On its own, the adapter responds with 400 if it can't build a URL from the Host header and
 * the target. No route uses that URL, so such a request is routed by its method and path like any other. The adapter
 * must also not read on after the response: the handler decides what happens to the rest of a body.
 */
function dispatch(app: App, incoming: IncomingMessage, outgoing: ServerResponse, log: Log): Promise<void> {
  const { method = "GET" } = incoming;
  const errorHandler = (thrown: unknown): Response | Promise<Response> => {
    if (thrown instanceof RequestError) {
      // A Request can't have the method TRACE; no route accepts OPTIONS, so use that.
      const request = new Request("http://localhost/", { method: method === "TRACE" ? "OPTIONS" : method });
      return app.fetch(request, { incoming, outgoing });
    }
    // The app handles every Error; this value was thrown but is not an Error.
    log(`${method} failed: ${messageOf(thrown)}`, "error", requestIdOn(outgoing));
    return failure(500, "internal", "The request failed. See the service's log.");
  };
  return getRequestListener(app.fetch, { autoCleanupIncoming: false, errorHandler })(incoming, outgoing);
}

function listen(
  server: Server,
  { name, host, port }: Pick<Service, "name" | "host" | "port">,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const refuse = (error: NodeJS.ErrnoException): void => {
      // `::` is all addresses of both families; on a machine without IPv6, those of IPv4.
      if (host === "::" && (error.code === "EAFNOSUPPORT" || error.code === "EADDRNOTAVAIL"))
        resolve(listen(server, { name, host: "0.0.0.0", port }));
      else reject(explain(error, name, host, port));
    };
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

/** Otherwise the client would keep the connection open for another request, and the stop would wait for it. */
function announceEnd(response: ServerResponse): void {
  if (!response.headersSent) response.setHeader("connection", "close");
}

function explain(error: NodeJS.ErrnoException, name: string, host: string, port: number): OperatorError {
  const address = `${host}:${port}`;
  if (error.code === "EADDRINUSE") {
    return new OperatorError({
      exit: "preflight",
      what: `${name} can't listen on ${address}: port ${port} is in use.`,
      why: "Another process already listens on it.",
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
