import { createServer, type RequestListener, type Server } from "node:http";
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
  const { listener, stop } = options;
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (request, response) => {
    if (stop.aborted) response.setHeader("connection", "close");
    // A connection that becomes idle during the stop has no next request to wait for.
    response.on("close", () => {
      if (stop.aborted) server.closeIdleConnections();
    });
    listener(request, response);
  });
  await listen(server, options);
  return { port: (server.address() as AddressInfo).port, stopped: closeOn(stop, server, options.graceMs) };
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

async function closeOn(stop: AbortSignal, server: Server, graceMs = GRACE_MS): Promise<void> {
  if (!stop.aborted) {
    await new Promise<void>((resolve) => {
      stop.addEventListener("abort", () => resolve(), { once: true });
    });
  }
  const closed = new Promise<void>((resolve) => {
    server.close(() => resolve());
  });
  const cutOff = setTimeout(() => server.closeAllConnections(), graceMs);
  await closed;
  clearTimeout(cutOff);
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
