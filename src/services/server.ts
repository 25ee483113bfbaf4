import { createServer, type RequestListener, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { messageOf, OperatorError } from "../errors.ts";

/** What a service is served with. */
export interface ServerOptions {
  /** `pinning-api`: what messages call it. */
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly listener: RequestListener;
  /** Aborted when the service is told to stop (SIGTERM). */
  readonly stop: AbortSignal;
  /** How long requests under way may take after that. */
  readonly graceMs?: number;
  /** How long one request may take to arrive whole. */
  readonly requestTimeoutMs?: number;
}

/** A server that listens. */
export interface RunningServer {
  readonly port: number;
  /** Resolves once the last connection is closed after the stop. */
  readonly stopped: Promise<void>;
}

const GRACE_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;

/**
 * Listens, and on the stop accepts nothing more, lets requests under way finish for the grace period,
 * then cuts them off. Throws an OperatorError (`preflight`) where the address can't be had.
 */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const {
    listener,
    stop,
    graceMs = GRACE_MS,
    requestTimeoutMs: requestTimeout = REQUEST_TIMEOUT_MS,
  } = options;
  const underWay = new Set<ServerResponse>();
  const server = createServer({ requestTimeout }, (request, response) => {
    underWay.add(response);
    response.once("close", () => underWay.delete(response));
    if (stop.aborted) announceEnd(response);
    listener(request, response);
  });
  await listen(server, options);
  const { port } = server.address() as AddressInfo;
  return { port, stopped: closeOn(stop, server, underWay, graceMs) };
}

function listen(server: Server, { name, host, port }: ServerOptions): Promise<void> {
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
  underWay: ReadonlySet<ServerResponse>,
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
  for (const response of underWay) announceEnd(response);
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
