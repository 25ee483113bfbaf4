import { OperatorError } from "../errors.ts";
import type { Answer } from "../machine/http-client.ts";
import {
  ask,
  askFresh,
  type ClusterTarget,
  type Listing,
  openWire,
  pathWithoutQuery,
  readListing,
  refusedAnswer,
  serverMessage,
  type TakeLines,
  type Connection,
} from "./request.ts";

export type { ClusterTarget, Listing, TakeLines } from "./request.ts";

/** What a peer says of itself (`/id`) or what another says of it (`/peers`); api/types.go, ID. */
export interface PeerIdentity {
  readonly id: string;
  readonly peername: string;
  readonly version: string;
  /** Not empty where the peer could not be asked. */
  readonly error: string;
  /** Not empty where its kubo does not answer. */
  readonly ipfsError: string;
  /** Where it can be dialled: multiaddrs with the peer. */
  readonly addresses: readonly string[];
  /** The members that it sees, itself included. */
  readonly clusterPeers: readonly string[];
}

/** The last valid value of one metric of one peer. */
export interface PeerMetric {
  readonly peer: string;
  readonly value: string;
  readonly valid: boolean;
}

/** The lists over pins: what is wished (`/allocations`), what the peers say (`/pins`), and what the asked one says of itself. */
export type ListName = "allocations" | "status" | "own-status";

/** Looks at an ipfs-cluster peer over its REST API. Every call throws an OperatorError (unavailable) when it can't tell. */
export interface ClusterReader {
  /** The peer that is asked. */
  identity(): Promise<PeerIdentity>;
  /** Every member, itself included; a peer that is gone for half a minute is no member any more. */
  peers(): Promise<readonly PeerIdentity[]>;
  /** Current values of a metric (`ping`, `freespace`); expired ones are left out by the server. */
  metrics(name: string): Promise<readonly PeerMetric[]>;
  /** Streams a list as blocks of whole JSON lines; it counts only once the promise has resolved. */
  list(name: ListName, takeLines: TakeLines): Promise<Listing>;
  /** The wished pin as the API's JSON object, or null where the CID is not in the pinset. */
  allocation(cid: string): Promise<unknown>;
  /** What each allocated peer says of one CID, offline ones too, as the API's JSON object. */
  status(cid: string): Promise<unknown>;
}

/** What a cluster answered to a pin. */
export type PinAnswer =
  | { readonly kind: "done" }
  /** `busy`: it may take it later. */
  | { readonly kind: "refused"; readonly status: number; readonly message: string; readonly busy: boolean };

/** Changes what a cluster does. */
export interface Cluster extends ClusterReader {
  /** Has the peers try again what failed for this CID; writes nothing into the pinset. */
  recover(cid: string): Promise<void>;
  /** Pins, by a path with query that planPin made: it has checked what the server does not. Throws where no answer came. */
  pin(path: string): Promise<PinAnswer>;
  /** Whether the server takes a path of so many bytes (max_header_bytes; 8 KiB in all unless raised). */
  takesPath(bytes: number): Promise<boolean>;
  /** Closes the kept connections. */
  close(): void;
}

const LIST_PATHS: Readonly<Record<ListName, string>> = {
  allocations: "/allocations",
  status: "/pins",
  "own-status": "/pins?local=true",
};

/** Opens the REST API of one ipfs-cluster peer; nothing is sent yet. Throws an OperatorError (settings) for an address or credentials it refuses. */
export function openCluster(target: ClusterTarget): Cluster {
  const wire = openWire(target);
  return {
    identity: async () => toIdentity(await askObject(wire, "GET", "/id")),
    peers: () => readPeers(wire),
    metrics: async (name) => {
      const body = await askJson(wire, "GET", `/monitor/metrics/${encodeURIComponent(name)}`);
      return Array.isArray(body) ? body.map(toMetric) : [];
    },
    list: (name, takeLines) => readListing(wire, LIST_PATHS[name], takeLines),
    allocation: async (cid) => {
      const path = `/allocations/${encodeURIComponent(cid)}`;
      const answer = await ask(wire, "GET", path);
      return answer.status === 404 ? null : parseAnswer(wire, path, answer);
    },
    status: (cid) => askJson(wire, "GET", `/pins/${encodeURIComponent(cid)}`),
    recover: async (cid) => void (await askJson(wire, "POST", `/pins/${encodeURIComponent(cid)}/recover`)),
    pin: (path) => pin(wire, path),
    takesPath: (bytes) => takesPath(wire, bytes),
    close: () => wire.client.close(),
  };
}

async function pin(wire: Connection, path: string): Promise<PinAnswer> {
  const answer = await ask(wire, "POST", path);
  const { status } = answer;
  if (status === 200) return { kind: "done" };
  if (status === 401 || status === 403) throw refusedAnswer(wire, "POST /pins", answer);
  const message = serverMessage(answer.text);
  const busy = status === 429 || status === 503 || /queue|too many/i.test(message);
  return { kind: "refused", status, message, busy };
}

/** A server that finds the head of a request too large answers 431, or hangs up before it was sent whole. */
async function takesPath(wire: Connection, bytes: number): Promise<boolean> {
  const start = "/id?";
  const path = `${start}${"x".repeat(Math.max(0, bytes - start.length))}`;
  try {
    return (await askFresh(wire, path)).status === 200;
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    await askObject(wire, "GET", "/id");
    return false;
  }
}

async function readPeers(wire: Connection): Promise<readonly PeerIdentity[]> {
  const peers: PeerIdentity[] = [];
  await readListing(wire, "/peers", (block) => {
    for (const line of block.toString("utf8").split("\n")) {
      if (line !== "") peers.push(toIdentity(parseLine(wire, line)));
    }
  });
  return peers;
}

function parseLine(wire: Connection, line: string): unknown {
  try {
    return JSON.parse(line);
  } catch (cause) {
    throw unreadable(wire, "/peers", cause);
  }
}

async function askJson(wire: Connection, method: "GET" | "POST", path: string): Promise<unknown> {
  return parseAnswer(wire, path, await ask(wire, method, path));
}

async function askObject(wire: Connection, method: "GET" | "POST", path: string): Promise<unknown> {
  const body = await askJson(wire, method, path);
  if (typeof body === "object" && body !== null) return body;
  throw unreadable(wire, path, undefined);
}

function parseAnswer(wire: Connection, path: string, answer: Answer): unknown {
  const what = pathWithoutQuery(path);
  if (answer.status !== 200) throw refusedAnswer(wire, what, answer);
  try {
    return JSON.parse(answer.text);
  } catch (cause) {
    throw unreadable(wire, what, cause);
  }
}

function unreadable(wire: Connection, what: string, cause: unknown): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `What ${wire.where} answered to ${what} is no answer of an ipfs-cluster REST API.`,
    remedy: "Check that the address is that of ipfs-cluster's REST API (port 9094).",
    cause,
  });
}

function toIdentity(value: unknown): PeerIdentity {
  const object = fields(value);
  return {
    id: text(object["id"]),
    peername: text(object["peername"]),
    version: text(object["version"]),
    error: text(object["error"]),
    ipfsError: text(fields(object["ipfs"])["error"]),
    addresses: Array.isArray(object["addresses"]) ? object["addresses"].map(text) : [],
    clusterPeers: Array.isArray(object["cluster_peers"]) ? object["cluster_peers"].map(text) : [],
  };
}

function toMetric(value: unknown): PeerMetric {
  const object = fields(value);
  return { peer: text(object["peer"]), value: text(object["value"]), valid: object["valid"] === true };
}

function fields(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
