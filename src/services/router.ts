import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { messageOf } from "../errors.ts";

/** An answer before it is sent: `body` becomes JSON. */
export interface Reply {
  readonly status: number;
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** What answers one kind of request. A route for GET answers HEAD too. */
export interface Route {
  readonly method: "GET" | "POST" | "DELETE";
  /** A path ending in `/*` stands for any one more segment, which the answer gets: decoded, "" without one. */
  readonly path: string;
  readonly answer: (request: IncomingMessage, segment: string) => Reply | Promise<Reply>;
}

/** How a service answers, and how it says what no route answers and what went wrong. */
export interface Routing {
  readonly routes: readonly Route[];
  readonly otherwise: (request: IncomingMessage, path: string) => Reply;
  /** For a route that threw: the client learns no detail, the log does. */
  readonly failed: Reply;
  readonly log: (line: string) => void;
}

/** Turns routes into what node's http server calls. */
export function listenerOf(routing: Routing): RequestListener {
  return (request, response) => {
    void respond(routing, request, response);
  };
}

async function respond(routing: Routing, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = (request.url ?? "/").split("?", 1)[0] ?? "/";
  send(response, await replyTo(routing, request, path));
}

async function replyTo(routing: Routing, request: IncomingMessage, path: string): Promise<Reply> {
  const method = request.method === "HEAD" ? "GET" : request.method;
  const route = routing.routes.find((candidate) => candidate.method === method && matches(candidate, path));
  try {
    return route === undefined
      ? routing.otherwise(request, path)
      : await route.answer(request, rest(route, path));
  } catch (error) {
    routing.log(`${request.method ?? "?"} ${path} failed: ${messageOf(error)}`);
    return routing.failed;
  }
}

function matches({ path: pattern }: Route, path: string): boolean {
  if (!pattern.endsWith("/*")) return pattern === path;
  const base = pattern.slice(0, -1);
  return path.startsWith(base) && path.length > base.length && !path.includes("/", base.length);
}

/** A segment that is no valid percent-encoding is given as it stands. */
function rest({ path: pattern }: Route, path: string): string {
  if (!pattern.endsWith("/*")) return "";
  const segment = path.slice(pattern.length - 1);
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

function send(response: ServerResponse, { status, body, headers }: Reply): void {
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    "content-type": "application/json; charset=utf-8",
    "content-length": Buffer.byteLength(text),
    "cache-control": "no-store",
    ...headers,
  });
  response.end(text);
}
