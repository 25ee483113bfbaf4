import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { messageOf } from "../errors.ts";

/** An answer before it is sent: `body` becomes JSON. */
export interface Reply {
  readonly status: number;
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** What answers one kind of request. A route for GET answers HEAD too. */
interface Route {
  readonly method: "GET";
  readonly path: string;
  readonly answer: (request: IncomingMessage) => Reply | Promise<Reply>;
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
  const route = routing.routes.find((candidate) => candidate.method === method && candidate.path === path);
  try {
    return route === undefined ? routing.otherwise(request, path) : await route.answer(request);
  } catch (error) {
    routing.log(`${request.method ?? "?"} ${path} failed: ${messageOf(error)}`);
    return routing.failed;
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
