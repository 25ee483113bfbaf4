import { once } from "node:events";
import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { http } from "../../src/machine/http.ts";
import type { PostgresPool } from "../../src/database/postgres.ts";
import { type App, createApp, json, type Service, startServer } from "../../src/services/server.ts";
import type { RequestEntry } from "../../src/services/requests.ts";
import { runService } from "../../src/services/run-service.ts";

/** A service that runs in this process. */
export interface Serving {
  readonly url: string;
  readonly lines: readonly string[];
  /** The requests that have ended. */
  readonly requests: readonly RequestEntry[];
  /** Tells it to stop, and waits until it has. */
  stop(): Promise<void>;
}

/** What a service over a database is opened with. */
export interface ServiceDeps {
  readonly pool: PostgresPool;
  readonly http: typeof http;
  readonly log: (line: string) => void;
  readonly version: string;
}

/** Opens a service and runs it until it listens; its port must be 0. Throws what it throws before that. */
export async function startService(
  open: (deps: ServiceDeps) => Service,
  pool: PostgresPool,
): Promise<Serving> {
  const lines: string[] = [];
  const requests: RequestEntry[] = [];
  const onRequest = (entry: RequestEntry) => void requests.push(entry);
  const stop = new AbortController();
  const listening = deferred<string>();
  const log = (line: string): void => {
    lines.push(line);
    const address = / listens on (\S+)$/.exec(line)?.[1];
    if (address !== undefined) listening.resolve(`http://${address}`);
  };
  const service = open({ pool, http, log, version: "1.2.3" });
  const ended = runService(service, { stop: stop.signal, log, onRequest, version: "1.2.3" });
  ended.catch(listening.reject);
  return {
    url: await listening.promise,
    lines,
    requests,
    async stop() {
      stop.abort();
      await ended;
    },
  };
}

/** Serves some routes alone. */
export async function startApp(routes: App, lines: string[] = []): Promise<Serving> {
  const failed = () => json(500, {});
  const app = createApp({ notFound: failed, failed }).route("/", routes);
  const requests: RequestEntry[] = [];
  const onRequest = (entry: RequestEntry) => void requests.push(entry);
  const stop = new AbortController();
  const service = { name: "test", host: "127.0.0.1", port: 0, app };
  const { port, stopped } = await startServer(service, {
    stop: stop.signal,
    log: (line) => void lines.push(line),
    onRequest,
  });
  return {
    url: `http://127.0.0.1:${port}`,
    lines,
    requests,
    async stop() {
      stop.abort();
      await stopped;
    },
  };
}

/** A promise that somebody else settles. */
export function deferred<T>(): {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (reason: unknown) => void;
} {
  const settle: { resolve?: (value: T) => void; reject?: (reason: unknown) => void } = {};
  const promise = new Promise<T>((resolve, reject) => Object.assign(settle, { resolve, reject }));
  return {
    promise,
    resolve: (value) => settle.resolve?.(value),
    reject: (reason) => settle.reject?.(reason),
  };
}

/** A plain server on a free port of 127.0.0.1. */
export async function listenAnywhere(
  listener: RequestListener,
): Promise<{ readonly port: number; readonly close: () => Promise<void> }> {
  const server = createServer(listener).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** A stand-in for an ipfs-cluster peer that knows `GET /id` only, in the shape of version 1.1.6. */
export async function startClusterPeer(): Promise<{
  readonly url: string;
  answer: { status: number; body: unknown };
  readonly authorizations: readonly (string | undefined)[];
  readonly close: () => Promise<void>;
}> {
  const authorizations: (string | undefined)[] = [];
  const peer = { answer: { status: 200, body: CLUSTER_ID as unknown } };
  const { port, close } = await listenAnywhere((request, response) => {
    authorizations.push(request.headers.authorization);
    const { status, body } = request.url === "/id" ? peer.answer : { status: 404, body: {} };
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  });
  return Object.assign(peer, { url: `http://127.0.0.1:${port}`, authorizations, close });
}

/** What a healthy peer answers to `GET /id`. */
const CLUSTER_ID = {
  id: "12D3KooWHByriNfWuwhFxamqUmi5BSuB24NgwKkYEusXK3QF41n2",
  addresses: [],
  cluster_peers: [],
  version: "1.1.6",
  rpc_protocol_version: "/ipfscluster/1.0/rpc",
  error: "",
  ipfs: { id: "12D3KooWLPvwXrusmd6moHNWd9rwtf8mdJittPRNj3GmzqRrTYcN", addresses: [], error: "" },
  peername: "m1",
};
