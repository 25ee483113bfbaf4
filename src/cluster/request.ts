import { messageOf, OperatorError } from "../errors.ts";
import {
  type Answer,
  HttpClient,
  HttpFailure,
  type HttpServer,
  parseJson,
  readWhole,
  type Receiver,
  type Trailers,
} from "../machine/http-client.ts";
import { withoutCids } from "../units.ts";
import { LineBlocks, LineTooLong } from "../machine/line-scanner.ts";
import { describeEndpoint, parseClusterEndpoint } from "./endpoint.ts";

/** How to reach a cluster's REST API. */
export interface ClusterTarget {
  /** A multiaddr or a URL; see parseClusterEndpoint. */
  readonly endpoint: string;
  /** `user:password`; never sent unencrypted to another host. */
  readonly basicAuth?: string;
  /** PEM of the authority that signed the API's certificate, if the system does not trust it. */
  readonly ca?: string;
  /** The number of open connections, and of single requests at the same time. Default 16. */
  readonly connections?: number;
  /** How long the server may send nothing during a single request. Default 60 s. */
  readonly requestTimeoutMs?: number;
  /** How long the server may send nothing during a listing; `/pins` sends its first byte only when every peer is done. Default 15 min. */
  readonly listingTimeoutMs?: number;
  /** Ends all running requests: a deadline, or Ctrl-C. */
  readonly signal?: AbortSignal;
}

/**
 * Receives whole lines, including the newlines, as they arrive. The receiver may keep the buffer. If it throws,
 * the listing ends with that error. While its promise is pending, the server has to wait.
 */
export type TakeLines = (lines: Buffer) => void | Promise<void>;

/** Facts about a complete listing. */
export interface Listing {
  /** True for status 204, no content. `/pins` also answers 204 if no peer could report. */
  readonly noContent: boolean;
  readonly bytes: number;
}

/** A target that is ready for requests: endpoint, client and headers. */
export interface Connection {
  readonly where: string;
  readonly server: HttpServer;
  readonly client: HttpClient;
  readonly headers: Readonly<Record<string, string>>;
  readonly requestTimeoutMs: number;
  readonly listingTimeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

/** More than any object of the REST API needs. */
const MAX_ANSWER_BYTES = 16 * 1024 ** 2;

/** Checks the target; nothing is sent yet. Throws an OperatorError (settings) if basic auth would be sent unencrypted. */
export function openConnection(target: ClusterTarget): Connection {
  const endpoint = parseClusterEndpoint(target.endpoint);
  const { basicAuth, requestTimeoutMs = 60_000, listingTimeoutMs = 900_000, ca, signal } = target;
  if (basicAuth !== undefined && !endpoint.secure && !endpoint.local) {
    throw new OperatorError({
      exit: "settings",
      what: `The password of the cluster would be sent unencrypted to ${describeEndpoint(endpoint)}.`,
      why: "Anyone on the network path could read it, and then unpin everything.",
      remedy: "Use https, or an address on this machine.",
    });
  }
  const headers: Record<string, string> = { accept: "application/json" };
  if (basicAuth !== undefined) {
    headers["authorization"] = `Basic ${Buffer.from(basicAuth, "utf8").toString("base64")}`;
  }
  const { socketPath } = endpoint;
  const server = {
    url: socketPath === null ? describeEndpoint(endpoint) : "http://localhost",
    socketPath,
    connections: target.connections ?? 16,
    connectTimeoutMs: requestTimeoutMs,
    ca,
    signal,
  };
  return {
    where: describeEndpoint(endpoint),
    server,
    client: new HttpClient(server),
    headers,
    requestTimeoutMs,
    listingTimeoutMs,
    signal,
  };
}

/**
 * Sends one request and reads the whole answer. Throws an OperatorError (unavailable) if no answer comes. `isOnce`: it is
 * never sent twice.
 */
export async function ask(
  connection: Connection,
  method: "GET" | "POST" | "DELETE",
  path: string,
  isOnce = false,
): Promise<Answer> {
  const { headers, requestTimeoutMs: silenceMs } = connection;
  try {
    return await connection.client.exchange(
      { method, path, headers, silenceMs, isOnce },
      readWhole(MAX_ANSWER_BYTES),
    );
  } catch (cause) {
    throw unreachable(connection, `${method} ${routeOf(path)}`, cause);
  }
}

/** Sends one request on a new connection. */
export async function askFresh(connection: Connection, path: string): Promise<Answer> {
  const client = new HttpClient({ ...connection.server, connections: 1, fresh: true });
  try {
    return await ask({ ...connection, client }, "GET", path);
  } finally {
    client.close();
  }
}

/**
 * Reads one streamed list of the REST API (api/common/api.go, StreamResponse) in constant memory.
 * Returns only if the list is proven to be complete: the HTTP message ended properly, the X-Stream-Error
 * trailer is there and has only empty values, the last line is whole, and the peer still accepts
 * new connections (it closes its listeners before it interrupts running lists). Anything else throws
 * an OperatorError (unavailable). Lines passed on before that prove nothing.
 */
export async function readListing(
  connection: Connection,
  path: string,
  takeLines: TakeLines,
): Promise<Listing> {
  const { headers, listingTimeoutMs: silenceMs } = connection;
  const lines = new LineBlocks();
  let bytes = 0;
  let listed = false;
  const list: Receiver<Trailers> = {
    take(part) {
      bytes += part.length;
      const block = lines.add(part);
      if (block !== null) return takeLines(block);
    },
    async end(trailers) {
      const rest = lines.rest();
      if (rest.length > 0) await takeLines(rest);
      return trailers;
    },
  };
  let answer: Trailers | Answer;
  try {
    answer = await connection.client.exchange<Trailers | Answer>(
      { method: "GET", path, headers, silenceMs },
      (status) => {
        listed = status === 200;
        return listed ? list : readWhole(MAX_ANSWER_BYTES)(status);
      },
    );
  } catch (cause) {
    if (cause instanceof LineTooLong) {
      throw incomplete(connection, path, `${cause.message}, so this is not a list of ipfs-cluster`, {
        cause,
        remedy:
          "Check that the address is that of an ipfs-cluster, without a proxy that changes its answers.",
      });
    }
    if (!(cause instanceof HttpFailure)) throw cause;
    throw listed ? cutOff(connection, path, bytes, cause) : unreachable(connection, `GET ${path}`, cause);
  }
  if (listed) checkTrailer(connection, path, answer as Trailers);
  else if ((answer as Answer).status !== 204)
    throw refusedAnswer(connection, `GET ${path}`, answer as Answer);
  await confirmAlive(connection, path);
  return { noContent: !listed, bytes };
}

/** The trailer comes twice if the server found an error after it had begun to end the list. */
function checkTrailer(connection: Connection, path: string, trailers: Trailers): void {
  const sent = trailers["x-stream-error"];
  if (sent === undefined) {
    throw incomplete(
      connection,
      path,
      "it ended without the X-Stream-Error trailer, which says whether it is complete",
      {
        remedy: "Connect to the cluster directly: a proxy that uses HTTP/1.0 drops the trailer.",
      },
    );
  }
  const problem = [sent].flat().find((value) => value.trim() !== "");
  if (problem !== undefined)
    throw incomplete(connection, path, `the cluster ended it with the error: ${problem.trim()}`);
}

async function confirmAlive(connection: Connection, path: string): Promise<void> {
  try {
    const answer = await askFresh(connection, "/id");
    if (answer.status === 200) return;
    throw refusedAnswer(connection, "GET /id", answer);
  } catch (cause) {
    throw incomplete(
      connection,
      path,
      "the peer stopped answering during the listing, so the end may be missing",
      {
        cause,
      },
    );
  }
}

function cutOff(connection: Connection, path: string, bytes: number, cause: unknown): OperatorError {
  return incomplete(connection, path, bytes > 0 ? `it was cut off after ${bytes} bytes` : "it was cut off", {
    cause,
  });
}

function incomplete(
  connection: Connection,
  path: string,
  why: string,
  more: { readonly cause?: unknown; readonly remedy?: string } = {},
): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `The list ${path} of the cluster at ${connection.where} is not complete: ${why}.`,
    why: "An incomplete list must not be used as the pinset.",
    remedy: more.remedy ?? "Check the log of ipfs-cluster, then run this again.",
    cause: more.cause,
  });
}

/** The error for a cluster that did not answer at all. */
export function unreachable(connection: Connection, what: string, cause: unknown): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `The cluster at ${connection.where} did not answer (${what}): ${whyOf(connection, cause)}.`,
    remedy: "See what does not work (fula-node status), repair it, then run this again.",
    cause,
  });
}

function whyOf({ signal }: Connection, cause: unknown): string {
  const reason: unknown = signal?.aborted === true ? signal.reason : null;
  if (reason instanceof Error && reason.name === "TimeoutError") return "the deadline of this run has passed";
  return messageOf(reason ?? cause);
}

/** The error for an answer with an unexpected status. It quotes the server's message. */
export function refusedAnswer(connection: Connection, what: string, answer: Answer): OperatorError {
  const denied = answer.status === 401 || answer.status === 403;
  return new OperatorError({
    exit: denied ? "settings" : "unavailable",
    what: `The cluster at ${connection.where} answered ${answer.status} to ${what}: ${serverMessage(answer.text)}`,
    remedy: denied
      ? "Set CLUSTER_BASIC_AUTH to the basic-auth credentials of the cluster."
      : "Check the log of ipfs-cluster, then run this again.",
  });
}

/** What a path asks: without its query and without CIDs. Names, metadata and contents of pins must not appear in logs. */
export function routeOf(path: string): string {
  return withoutCids(path.split("?", 1)[0] ?? path);
}

/** The server's error message: from the first error object, or else the start of the text that it sent. */
export function serverMessage(text: string): string {
  const body = parseJson(text.split("\n", 1)[0] ?? "") as { readonly message?: unknown } | null;
  if (typeof body?.message === "string") return body.message;
  return text === "" ? "no message." : text.slice(0, 300);
}
