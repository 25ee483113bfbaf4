import { randomUUID } from "node:crypto";
import { type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";

/** What is known of a request once it has ended. Nothing in it comes from the client, except an id of a fixed form. */
export interface RequestEntry {
  readonly id: string;
  /** True if it came to the listener for other machines. */
  readonly isOutside: boolean;
  readonly method: string;
  /** The pattern of the route (`/pins/:id`), never the path. */
  readonly route: string;
  /** The status of the answer; 499 if the client left before it was sent. */
  readonly status: number;
  readonly ms: number;
}

/** Gets each request once it has ended. */
export type OnRequest = (entry: RequestEntry) => void;

/** The header with the id of a request. Every answer has it. */
export const REQUEST_ID = "x-request-id";
/** The route of a path that no route has. */
export const NO_ROUTE = "none";
/** The route of what is not HTTP, or has a head that is too large or too slow. */
export const NOT_READ = "invalid";
/** As nginx logs it. */
const CLIENT_LEFT = 499;

/** What may come from another program: enough for a UUID, a ULID or the id of a trace. */
const WELL_FORMED = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const LOOPBACK = /^(?:127\.|::1$|::ffff:127\.)/;

/**
 * The id of a request. A program on this machine may bring its own, so that its log and ours can be joined. Everybody
 * else gets a new one: what came from another machine, on the listener for the edge or through a proxy (which adds
 * X-Forwarded-For), could repeat or imitate the id of somebody else's request.
 */
export function requestIdOf(
  { headers, socket }: Pick<IncomingMessage, "headers" | "socket">,
  isOutside: boolean,
): string {
  const given = headers[REQUEST_ID];
  if (typeof given !== "string" || isOutside) return randomUUID();
  const isProxied = headers["x-forwarded-for"] !== undefined || headers.forwarded !== undefined;
  const isHere = LOOPBACK.test(socket.remoteAddress ?? "");
  return isHere && !isProxied && WELL_FORMED.test(given) ? given : randomUUID();
}

/** The id of a request that is being answered. */
export function requestIdOn(outgoing: ServerResponse): string {
  return String(outgoing.getHeader(REQUEST_ID) ?? "");
}

/** What watchRequests needs. */
export interface WatchOptions {
  /** The patterns of the routes, as the app has them. */
  readonly routes: readonly string[];
  /** True if requests from other machines come here. */
  readonly isOutside: boolean;
  readonly onRequest: OnRequest;
  /** The body for a request that could not be read. */
  readonly describeUnread?: DescribeUnread;
}

/** Makes the body of the answer to a request that could not be read. */
export type DescribeUnread = (reason: string, details: string) => unknown;

const describePlainly: DescribeUnread = (_reason, error) => ({ error });

/**
 * Gives each request of the server its id, which the answer has in X-Request-Id, and reports it once it has ended. A
 * request that Node.js could not read gets an answer with an id, too.
 */
export function watchRequests(server: Server, options: WatchOptions): void {
  const { routes, isOutside, onRequest, describeUnread = describePlainly } = options;
  const patternOf = createPatterns(routes);
  const underWay = new WeakMap<
    Duplex,
    { readonly outgoing: ServerResponse; readonly refuse: (as: number) => void }
  >();
  const refused = new WeakSet<Duplex>();

  // Node.js would answer an expectation that it does not know by itself, without an id.
  server.on("checkExpectation", (incoming, outgoing) => server.emit("request", incoming, outgoing));
  server.prependListener("request", (incoming, outgoing) => {
    const from = performance.now();
    const id = requestIdOf(incoming, isOutside);
    outgoing.setHeader(REQUEST_ID, id);
    const { method = "GET", url = "/", socket } = incoming;
    let unsent = CLIENT_LEFT;
    underWay.set(socket, { outgoing, refuse: (status) => void (unsent = status) });
    outgoing.once("close", () => {
      if (underWay.get(socket)?.outgoing === outgoing) underWay.delete(socket);
      const status = outgoing.headersSent ? outgoing.statusCode : unsent;
      const ms = performance.now() - from;
      onRequest({ id, isOutside, method, route: patternOf(pathOf(url)), status, ms });
    });
  });

  // Without a listener, Node.js closes the connection without an answer.
  server.on("connect", (incoming, socket) => {
    const id = requestIdOf(incoming, isOutside);
    socket.on("error", () => socket.destroy());
    socket.end(
      answerUnread(
        405,
        describeUnread("METHOD_NOT_ALLOWED", "Tunnels are not served here."),
        id,
        "allow: GET\r\n",
      ),
    );
    onRequest({ id, isOutside, method: "CONNECT", route: NOT_READ, status: 405, ms: 0 });
  });

  // Without a listener, Node.js sends an answer without a body.
  server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
    // It comes again with each piece that is read after the first one.
    if (refused.has(socket)) return;
    refused.add(socket);
    const request = underWay.get(socket);
    if (error.code === "ECONNRESET" || !socket.writable || request?.outgoing.headersSent === true) {
      socket.destroy();
      return;
    }
    const [status, reason, details] = UNREAD[error.code ?? ""] ?? NOT_HTTP;
    const id = request === undefined ? randomUUID() : requestIdOn(request.outgoing);
    socket.end(
      answerUnread(status, describeUnread(reason, details), id),
      // The handler of a request must learn that the rest of its body will not come.
      () => request !== undefined && socket.destroy(),
    );
    // Closed at once, the connection would be reset, and the client, which is still sending, would not see the answer.
    setTimeout(() => socket.destroy(), LINGER_MS).unref();
    if (request === undefined) onRequest({ id, isOutside, method: "?", route: NOT_READ, status, ms: 0 });
    else request.refuse(status);
  });
}

/** An answer as text, for a socket that Node.js gives no response for. */
function answerUnread(status: number, described: unknown, id: string, more = ""): string {
  const body = `${JSON.stringify(described)}\n`;
  return (
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}\r\ncontent-type: application/json; charset=utf-8\r\n` +
    `content-length: ${Buffer.byteLength(body)}\r\n${REQUEST_ID}: ${id}\r\n${more}connection: close\r\n\r\n${body}`
  );
}

/**
 * Answers 400 to a request of HTTP/1.1 without a Host header (RFC 9112, section 3.2), and returns true. Node.js, which
 * would do it, gives such an answer no id.
 */
export function refuseWithoutHost(
  { headers, httpVersion }: IncomingMessage,
  outgoing: ServerResponse,
  describeUnread: DescribeUnread = describePlainly,
): boolean {
  if (headers.host !== undefined || httpVersion !== "1.1") return false;
  const body = `${JSON.stringify(describeUnread("BAD_REQUEST", "The Host header is missing."))}\n`;
  outgoing.writeHead(400, { "content-type": "application/json; charset=utf-8", connection: "close" });
  outgoing.end(body);
  return true;
}

/**
 * Ends a request whose body does not arrive in time, as Node.js ends one after its `requestTimeout`, which is the same for
 * all paths of a server.
 */
export function boundArrival(server: Server, incoming: IncomingMessage, timeoutMs: number): void {
  const { headers, socket } = incoming;
  if (headers["transfer-encoding"] === undefined && Number(headers["content-length"] ?? 0) === 0) return;
  const timer = setTimeout(() => {
    if (incoming.complete) return;
    const late = Object.assign(new Error("the request is too slow"), { code: "ERR_HTTP_REQUEST_TIMEOUT" });
    server.emit("clientError", late, socket);
  }, timeoutMs);
  incoming.once("close", () => clearTimeout(timer)).once("end", () => clearTimeout(timer));
}

const LINGER_MS = 1_000;
const NOT_HTTP = [400, "BAD_REQUEST", "The request is not valid HTTP/1.1."] as const;
/** By the codes of Node.js (its _http_server.js, socketOnError). */
const UNREAD: Readonly<Record<string, readonly [status: number, reason: string, details: string]>> = {
  HPE_HEADER_OVERFLOW: [431, "REQUEST_HEADER_FIELDS_TOO_LARGE", "The headers are too large."],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: [413, "PAYLOAD_TOO_LARGE", "The extensions of a chunk are too large."],
  ERR_HTTP_REQUEST_TIMEOUT: [408, "REQUEST_TIMEOUT", "The request did not arrive in time."],
};

function pathOf(url: string): string {
  const end = url.indexOf("?");
  return end < 0 ? url : url.slice(0, end);
}

/** Finds the pattern of a path, as the router does: `:name` is one part that is not empty, `*` is the rest. */
function createPatterns(routes: readonly string[]): (path: string) => string {
  const known = [...new Set(routes)].filter((route) => !/^\/?\*$/.test(route));
  const plain = new Set(known.filter((route) => !/[:*]/.test(route)));
  const others = known
    .filter((route) => !plain.has(route))
    .map((route) => ({
      route,
      expression: new RegExp(
        `^${route
          .replaceAll(/[.+?^$()|[\]{}\\]/g, String.raw`\$&`)
          .replaceAll(/:\w+/g, "[^/]+")
          .replace(/\/\*$/, "(?:/.*)?")}$`,
        "s",
      ),
    }));
  return (path) => {
    if (plain.has(path)) return path;
    return others.find(({ expression }) => expression.test(path))?.route ?? NO_ROUTE;
  };
}
