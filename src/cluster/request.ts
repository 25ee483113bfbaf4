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
import { LineBlocks } from "../machine/line-scanner.ts";
import { describeEndpoint, parseClusterEndpoint } from "./endpoint.ts";

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

/**
 * Takes whole lines, newline included, as they come. The bytes are the receiver's to keep. What it
 * throws ends the listing; while its promise is pending the server is made to wait.
 */
export type TakeLines = (lines: Buffer) => void | Promise<void>;

/** What a complete listing was. */
export interface Listing {
  /** True for a 204: the server said "nothing", which `/pins` also says when no peer could tell. */
  readonly saidNothing: boolean;
  readonly bytes: number;
}

/** A target made ready: the endpoint read, the client open, the headers made. */
export interface Connection {
  readonly where: string;
  readonly server: HttpServer;
  readonly client: HttpClient;
  readonly headers: Readonly<Record<string, string>>;
  readonly requestTimeoutMs: number;
  readonly listingTimeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

/** Longer than any object of the REST API. */
const MAX_ANSWER_BYTES = 16 * 1024 ** 2;

/** Checks the target; opens no connection. Throws an OperatorError (settings) for basic auth in clear. */
export function openWire(target: ClusterTarget): Connection {
  const endpoint = parseClusterEndpoint(target.endpoint);
  const { basicAuth, requestTimeoutMs = 60_000, listingTimeoutMs = 900_000, ca, signal } = target;
  if (basicAuth !== undefined && !endpoint.secure && !endpoint.local) {
    throw new OperatorError({
      exit: "settings",
      what: `The cluster's password would go in clear to ${describeEndpoint(endpoint)}.`,
      why: "Anybody on the way could read it and then unpin everything.",
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

/** Asks one thing and reads the whole answer. Throws an OperatorError (unavailable) when none comes. */
export async function ask(wire: Connection, method: "GET" | "POST", path: string): Promise<Answer> {
  const { headers, requestTimeoutMs: silenceMs } = wire;
  try {
    return await wire.client.exchange({ method, path, headers, silenceMs }, readWhole(MAX_ANSWER_BYTES));
  } catch (cause) {
    throw unreachable(wire, `${method} ${pathWithoutQuery(path)}`, cause);
  }
}

/** Asks one thing on a connection of its own. */
export async function askFresh(wire: Connection, path: string): Promise<Answer> {
  const client = new HttpClient({ ...wire.server, connections: 1, fresh: true });
  try {
    return await ask({ ...wire, client }, "GET", path);
  } finally {
    client.close();
  }
}

/**
 * Reads one streamed list of the REST API (api/common/api.go, StreamResponse) in constant memory.
 * Returns only when the list is proven complete: the HTTP message ended properly, the X-Stream-Error
 * trailer is there with nothing but empty values, the last line is whole, and the peer still accepts
 * new connections (it closes its listeners before it interrupts running lists). Anything else throws
 * an OperatorError (unavailable); lines handed out until then prove nothing.
 */
export async function readListing(wire: Connection, path: string, takeLines: TakeLines): Promise<Listing> {
  const { headers, listingTimeoutMs: silenceMs } = wire;
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
    answer = await wire.client.exchange<Trailers | Answer>(
      { method: "GET", path, headers, silenceMs },
      (status) => {
        listed = status === 200;
        return listed ? list : readWhole(MAX_ANSWER_BYTES)(status);
      },
    );
  } catch (cause) {
    if (!(cause instanceof HttpFailure)) throw cause;
    throw listed ? cut(wire, path, bytes, cause) : unreachable(wire, `GET ${path}`, cause);
  }
  if (listed) judgeEnd(wire, path, answer as Trailers);
  else if ((answer as Answer).status !== 204) throw refusedAnswer(wire, `GET ${path}`, answer as Answer);
  await confirmAlive(wire, path);
  return { saidNothing: !listed, bytes };
}

/** The header comes twice where the server found a fault after it had begun to end the list. */
function judgeEnd(wire: Connection, path: string, trailers: Trailers): void {
  const sent = trailers["x-stream-error"];
  if (sent === undefined) {
    throw incomplete(
      wire,
      path,
      "it ended without the X-Stream-Error trailer that says whether it is whole",
      {
        remedy: "Ask the cluster itself: a proxy that speaks HTTP/1.0 drops the trailer.",
      },
    );
  }
  const problem = [sent].flat().find((value) => value.trim() !== "");
  if (problem !== undefined) throw incomplete(wire, path, `the cluster ended it with: ${problem.trim()}`);
}

async function confirmAlive(wire: Connection, path: string): Promise<void> {
  try {
    const answer = await askFresh(wire, "/id");
    if (answer.status === 200) return;
    throw refusedAnswer(wire, "GET /id", answer);
  } catch (cause) {
    throw incomplete(wire, path, "the peer stopped answering while it was read, so its end may be missing", {
      cause,
    });
  }
}

function cut(wire: Connection, path: string, bytes: number, cause: unknown): OperatorError {
  return incomplete(wire, path, bytes > 0 ? `it was cut off after ${bytes} bytes` : "it was cut off", {
    cause,
  });
}

function incomplete(
  wire: Connection,
  path: string,
  why: string,
  more: { readonly cause?: unknown; readonly remedy?: string } = {},
): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `The list ${path} of the cluster at ${wire.where} is not complete: ${why}.`,
    why: "An incomplete list must not be taken for the pinset.",
    remedy: more.remedy ?? "Look at the cluster's log, then run this again.",
    cause: more.cause,
  });
}

/** The error for a cluster that could not be asked at all. */
export function unreachable(wire: Connection, what: string, cause: unknown): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `The cluster at ${wire.where} could not be asked (${what}): ${whyOf(wire, cause)}.`,
    remedy: "Check that ipfs-cluster runs and answers (curl its /id), then run this again.",
    cause,
  });
}

function whyOf({ signal }: Connection, cause: unknown): string {
  const reason: unknown = signal?.aborted === true ? signal.reason : null;
  if (reason instanceof Error && reason.name === "TimeoutError") return "this run's own deadline has passed";
  return messageOf(reason ?? cause);
}

/** The error for an answer other than the one that was hoped for; the server's message is quoted. */
export function refusedAnswer(wire: Connection, what: string, answer: Answer): OperatorError {
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
  const body = parseJson(text.split("\n", 1)[0] ?? "") as { readonly message?: unknown } | null;
  if (typeof body?.message === "string") return body.message;
  return text === "" ? "no message." : text.slice(0, 300);
}
