import { OperatorError } from "../errors.ts";
import type { Answer } from "../machine/http-client.ts";
import {
  ask,
  askFresh,
  type ClusterTarget,
  type Connection,
  type Listing,
  openConnection,
  routeOf,
  readListing,
  refusedAnswer,
  serverMessage,
  type TakeLines,
} from "./request.ts";

export type { ClusterTarget, Listing, TakeLines } from "./request.ts";

/** The identity of a peer, as reported by itself (`/id`) or by another peer (`/peers`); api/types.go, ID. */
export interface PeerIdentity {
  readonly id: string;
  readonly peername: string;
  readonly version: string;
  /** Not empty if the peer did not answer. */
  readonly error: string;
  /** Not empty if its kubo does not answer. */
  readonly ipfsError: string;
  /** The addresses of its kubo: multiaddrs that end with kubo's peer id. Empty if it does not answer. */
  readonly ipfsAddresses: readonly string[];
  /** Its addresses: multiaddrs that end with its peer id. */
  readonly addresses: readonly string[];
  /** The members that it knows, including itself. */
  readonly clusterPeers: readonly string[];
}

/** The last valid value of one metric of one peer. */
export interface PeerMetric {
  readonly peer: string;
  readonly value: string;
  readonly valid: boolean;
}

/** The lists of pins: the desired pinset (`/allocations`), the status that all peers report (`/pins`), and the status of the addressed peer only. */
export type ListName = "allocations" | "status" | "own-status";

/** Reads from an ipfs-cluster peer over its REST API. Every call throws an OperatorError (unavailable) if it does not get a valid answer. */
export interface ClusterReader {
  /** The identity of the addressed peer. */
  identity(): Promise<PeerIdentity>;
  /** Every member, including the addressed peer. A peer that is gone for half a minute is not a member any more. */
  peers(): Promise<readonly PeerIdentity[]>;
  /** Current values of a metric (`ping`, `freespace`). The server leaves out expired ones. */
  metrics(name: string): Promise<readonly PeerMetric[]>;
  /** Streams a list in blocks of whole JSON lines. The list is valid only after the promise has resolved. */
  list(name: ListName, takeLines: TakeLines): Promise<Listing>;
  /** The pin in the desired pinset, as the API's JSON object, or null if the CID is not in the pinset. */
  allocation(cid: string): Promise<unknown>;
  /** The status of one CID on each allocated peer, also on offline ones, as the API's JSON object. */
  status(cid: string): Promise<unknown>;
  /** The status of one CID on the addressed peer, in the same form. */
  ownStatus(cid: string): Promise<unknown>;
}

/** The answer of a cluster to a pin request. */
export type PinAnswer =
  | { readonly kind: "done" }
  /** `busy`: the cluster may accept the pin later. */
  | { readonly kind: "refused"; readonly status: number; readonly message: string; readonly busy: boolean };

/** Reads from a cluster and changes its pinset. */
export interface Cluster extends ClusterReader {
  /** Makes the peers try again what failed for this CID. It does not change the pinset. */
  recover(cid: string): Promise<void>;
  /** Makes the addressed peer alone try again what failed for this CID. Returns its status then, as ownStatus does. */
  recoverHere(cid: string): Promise<unknown>;
  /** Sends a pin request. The path with query must come from planPin, which checks what the server does not check. Throws if no answer comes. */
  pin(path: string): Promise<PinAnswer>;
  /** Takes the CID out of the pinset. `absent`: it was not there. Throws if no answer comes, or another one. */
  unpin(cid: string): Promise<"removed" | "absent">;
  /** True if the server accepts a path of this length (max_header_bytes; by default 8 KiB for the whole head of a request). */
  acceptsPath(bytes: number): Promise<boolean>;
  /** Closes the open connections. */
  close(): void;
}

const LIST_PATHS: Readonly<Record<ListName, string>> = {
  allocations: "/allocations",
  status: "/pins",
  "own-status": "/pins?local=true",
};

/** Opens the REST API of one ipfs-cluster peer. Nothing is sent yet. Throws an OperatorError (settings) for an invalid address, or for credentials that would be sent unencrypted. */
export function openCluster(target: ClusterTarget): Cluster {
  const connection = openConnection(target);
  return {
    identity: async () => toIdentity(await askObject(connection, "GET", "/id")),
    peers: () => readPeers(connection),
    metrics: async (name) => {
      const body = await askJson(connection, "GET", `/monitor/metrics/${encodeURIComponent(name)}`);
      return Array.isArray(body) ? body.map(toMetric) : [];
    },
    list: (name, takeLines) => readListing(connection, LIST_PATHS[name], takeLines),
    allocation: async (cid) => {
      const path = `/allocations/${encodeURIComponent(cid)}`;
      const answer = await ask(connection, "GET", path);
      return answer.status === 404 ? null : parseAnswer(connection, path, answer);
    },
    status: (cid) => askJson(connection, "GET", `/pins/${encodeURIComponent(cid)}`),
    ownStatus: (cid) => askJson(connection, "GET", `/pins/${encodeURIComponent(cid)}?local=true`),
    recoverHere: (cid) => askJson(connection, "POST", `/pins/${encodeURIComponent(cid)}/recover?local=true`),
    recover: async (cid) =>
      void (await askJson(connection, "POST", `/pins/${encodeURIComponent(cid)}/recover`)),
    pin: (path) => pin(connection, path),
    unpin: (cid) => unpin(connection, cid),
    acceptsPath: (bytes) => acceptsPath(connection, bytes),
    close: () => connection.client.close(),
  };
}

/** Sent once, as an unpin: whoever calls must know that a call got no answer, since its effect may come after a later one's. */
async function pin(connection: Connection, path: string): Promise<PinAnswer> {
  const answer = await ask(connection, "POST", path, true);
  const { status } = answer;
  if (status === 200) return { kind: "done" };
  if (status === 401 || status === 403) throw refusedAnswer(connection, "POST /pins", answer);
  const message = serverMessage(answer.text);
  const busy = status === 429 || status === 503 || /queue|too many/i.test(message);
  return { kind: "refused", status, message, busy };
}

async function unpin(connection: Connection, cid: string): Promise<"removed" | "absent"> {
  const path = `/pins/${encodeURIComponent(cid)}`;
  const answer = await ask(connection, "DELETE", path, true);
  // Any server answers 404 to a path that it does not know.
  if (answer.status === 404 && /not part of the pinset/.test(serverMessage(answer.text))) return "absent";
  if (answer.status === 200) return "removed";
  throw refusedAnswer(connection, `DELETE ${routeOf(path)}`, answer);
}

/** If the head of a request is too large, the server answers 431, or closes the connection before everything was sent. */
async function acceptsPath(connection: Connection, bytes: number): Promise<boolean> {
  const start = "/id?";
  const path = `${start}${"x".repeat(Math.max(0, bytes - start.length))}`;
  try {
    return (await askFresh(connection, path)).status === 200;
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    await askObject(connection, "GET", "/id");
    return false;
  }
}

async function readPeers(connection: Connection): Promise<readonly PeerIdentity[]> {
  const peers: PeerIdentity[] = [];
  await readListing(connection, "/peers", (block) => {
    for (const line of block.toString("utf8").split("\n")) {
      if (line !== "") peers.push(toIdentity(parseLine(connection, line)));
    }
  });
  return peers;
}

function parseLine(connection: Connection, line: string): unknown {
  try {
    return JSON.parse(line);
  } catch (cause) {
    throw unreadable(connection, "/peers", cause);
  }
}

async function askJson(connection: Connection, method: "GET" | "POST", path: string): Promise<unknown> {
  return parseAnswer(connection, path, await ask(connection, method, path));
}

async function askObject(connection: Connection, method: "GET" | "POST", path: string): Promise<unknown> {
  const body = await askJson(connection, method, path);
  if (typeof body === "object" && body !== null) return body;
  throw unreadable(connection, path, undefined);
}

function parseAnswer(connection: Connection, path: string, answer: Answer): unknown {
  const what = routeOf(path);
  if (answer.status !== 200) throw refusedAnswer(connection, what, answer);
  try {
    return JSON.parse(answer.text);
  } catch (cause) {
    throw unreadable(connection, what, cause);
  }
}

function unreadable(connection: Connection, what: string, cause: unknown): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `${connection.where} did not answer ${what} like the REST API of ipfs-cluster.`,
    remedy: "Check that the address belongs to the REST API of ipfs-cluster (port 9094).",
    cause,
  });
}

function toIdentity(value: unknown): PeerIdentity {
  const object = fields(value);
  const ipfs = fields(object["ipfs"]);
  return {
    id: text(object["id"]),
    peername: text(object["peername"]),
    version: text(object["version"]),
    error: text(object["error"]),
    ipfsError: text(ipfs["error"]),
    ipfsAddresses: texts(ipfs["addresses"]),
    addresses: texts(object["addresses"]),
    clusterPeers: texts(object["cluster_peers"]),
  };
}

function toMetric(value: unknown): PeerMetric {
  const object = fields(value);
  return { peer: text(object["peer"]), value: text(object["value"]), valid: object["valid"] === true };
}

function fields(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function texts(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.map(text) : [];
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
