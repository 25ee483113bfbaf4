import http from "node:http";
import https from "node:https";
import { messageOf, OperatorError } from "../errors.ts";
import { type ClusterEndpoint, describeEndpoint, parseClusterEndpoint } from "./endpoint.ts";

/** How to reach a cluster's REST API. */
export interface ClusterTarget {
  /** A multiaddr or a URL; see parseClusterEndpoint. */
  readonly endpoint: string;
  /** `user:password`; never sent in clear to another host. */
  readonly basicAuth?: string;
  /** PEM of the authority that signed the API's certificate, where the system does not know it. */
  readonly ca?: string;
  /** Connections kept open at once; also how many single requests run at once. Default 16. */
  readonly connections?: number;
  /** Longest silence of the server while one thing is asked. Default 60 s. */
  readonly requestTimeoutMs?: number;
  /** Longest silence in a listing; `/pins` sends its first byte only when every peer is done. Default 15 min. */
  readonly listingTimeoutMs?: number;
  /** Ends everything that is under way: a deadline, or Ctrl-C. */
  readonly signal?: AbortSignal;
}

/** A target made ready: the endpoint read, the agent open, the headers made. */
export interface Wire {
  readonly endpoint: ClusterEndpoint;
  readonly where: string;
  readonly agent: http.Agent;
  readonly headers: Readonly<Record<string, string>>;
  readonly requestTimeoutMs: number;
  readonly listingTimeoutMs: number;
  readonly ca: string | undefined;
  readonly signal: AbortSignal | undefined;
}

/** One answer, read whole. */
export interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Checks the target and opens the agent. Throws an OperatorError (settings) for basic auth in clear. */
export function openWire(target: ClusterTarget): Wire {
  const endpoint = parseClusterEndpoint(target.endpoint);
  if (target.basicAuth !== undefined && !endpoint.secure && !endpoint.local) {
    throw new OperatorError({
      exit: "settings",
      what: `The cluster's password would go in clear to ${describeEndpoint(endpoint)}.`,
      why: "Anybody on the way could read it and then unpin everything.",
      remedy: "Use https, or an address on this machine.",
    });
  }
  const options = { keepAlive: true, maxSockets: target.connections ?? 16 };
  const headers: Record<string, string> = { accept: "application/json" };
  if (target.basicAuth !== undefined) {
    headers["authorization"] = `Basic ${Buffer.from(target.basicAuth, "utf8").toString("base64")}`;
  }
  return {
    endpoint,
    where: describeEndpoint(endpoint),
    agent: endpoint.secure ? new https.Agent(options) : new http.Agent(options),
    headers,
    requestTimeoutMs: target.requestTimeoutMs ?? 60_000,
    listingTimeoutMs: target.listingTimeoutMs ?? 900_000,
    ca: target.ca,
    signal: target.signal,
  };
}

interface Question {
  readonly method: "GET" | "POST";
  readonly path: string;
  /** On a connection of its own. */
  readonly fresh?: boolean;
}

/** Sends a request and hands its response over as it starts; `timeoutMs` bounds each silence. */
export function startRequest(
  wire: Wire,
  question: Question,
  timeoutMs: number,
): Promise<http.IncomingMessage> {
  const { endpoint, ca, signal } = wire;
  const { method, path, fresh = false } = question;
  return new Promise((resolve, reject) => {
    const request = (endpoint.secure ? https : http).request({
      method,
      path,
      headers: fresh ? { ...wire.headers, connection: "close" } : wire.headers,
      agent: fresh ? false : wire.agent,
      timeout: timeoutMs,
      ...(endpoint.socketPath === null
        ? { host: endpoint.host, port: endpoint.port }
        : { socketPath: endpoint.socketPath }),
      ...(ca === undefined ? {} : { ca }),
      ...(signal === undefined ? {} : { signal }),
    });
    request.on("response", resolve);
    request.on("timeout", () => {
      request.destroy(new Error(`nothing was heard for ${Math.round(timeoutMs / 1000)} s`));
    });
    request.on("error", (cause) => {
      if (isStale(wire, request, cause)) startRequest(wire, question, timeoutMs).then(resolve, reject);
      else reject(cause);
    });
    request.end();
  });
}

/** Asks one thing and reads the whole answer. Throws an OperatorError (unavailable) when none comes. */
export async function ask(
  wire: Wire,
  method: "GET" | "POST",
  path: string,
  { fresh = false }: { readonly fresh?: boolean } = {},
): Promise<Answer> {
  try {
    const response = await startRequest(wire, { method, path, fresh }, wire.requestTimeoutMs);
    return { status: response.statusCode ?? 0, text: await readAll(response) };
  } catch (cause) {
    throw unreachable(wire, `${method} ${pathWithoutQuery(path)}`, cause);
  }
}

function readAll(response: http.IncomingMessage): Promise<string> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    response.on("data", (part: Buffer) => parts.push(part));
    response.on("error", reject);
    response.on("end", () => resolve(Buffer.concat(parts).toString("utf8")));
  });
}

/** A kept connection may have been closed by the server meanwhile: the request never arrived. */
function isStale({ signal }: Wire, request: http.ClientRequest, cause: NodeJS.ErrnoException): boolean {
  return request.reusedSocket && cause.code === "ECONNRESET" && signal?.aborted !== true;
}

/** The error for a cluster that could not be asked at all. */
export function unreachable(wire: Wire, what: string, cause: unknown): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `The cluster at ${wire.where} could not be asked (${what}): ${whyOf(wire, cause)}.`,
    remedy: "Check that ipfs-cluster runs and answers (curl its /id), then run this again.",
    cause,
  });
}

function whyOf({ signal }: Wire, cause: unknown): string {
  const reason: unknown = signal?.aborted === true ? signal.reason : null;
  if (reason instanceof Error && reason.name === "TimeoutError") return "this run's own deadline has passed";
  return messageOf(reason ?? cause);
}

/** The error for an answer other than the one that was hoped for; the server's message is quoted. */
export function refusedAnswer(wire: Wire, what: string, answer: Answer): OperatorError {
  const denied = answer.status === 401 || answer.status === 403;
  return new OperatorError({
    exit: denied ? "settings" : "unavailable",
    what: `The cluster at ${wire.where} answered ${answer.status} to ${what}: ${serverMessage(answer.text)}`,
    remedy: denied
      ? "Give the cluster's basic-auth credentials."
      : "Look at the cluster's log, then run this again.",
  });
}

/** The path without its query: names and metadata of pins are not for logs. */
export function pathWithoutQuery(path: string): string {
  return path.split("?", 1)[0] ?? path;
}

/** What the server says went wrong: the first of its error objects, or the start of whatever it sent. */
export function serverMessage(text: string): string {
  try {
    const body = JSON.parse(text.split("\n", 1)[0] ?? "") as { readonly message?: unknown };
    if (typeof body.message === "string") return body.message;
  } catch {
    // Not the API's own error object: shown as it came.
  }
  return text === "" ? "no message." : text.slice(0, 300);
}
