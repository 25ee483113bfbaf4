import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";

/** A pin as in `/allocations`. Missing fields get the API's defaults. */
export interface DoublePin {
  readonly cid: string;
  readonly [field: string]: unknown;
}

/** A fault of a list. */
export type ListFault =
  | { readonly kind: "cut"; readonly afterLines: number; readonly how: "fin" | "reset" }
  | { readonly kind: "late-error"; readonly message: string }
  | { readonly kind: "no-trailer" }
  | { readonly kind: "nothing" }
  | { readonly kind: "first-error"; readonly message: string }
  | { readonly kind: "garbage"; readonly line: string }
  | { readonly kind: "stall"; readonly afterLines: number }
  | { readonly kind: "stops-listening" }
  | { readonly kind: "answers-500-afterwards" };

/** One storage node of the double. */
export interface DoublePeer {
  readonly id: string;
  readonly name: string;
  /** False: it is no longer a member, like a dead peer whose ping has expired. */
  present: boolean;
  /** True: it does not trust the peer that is asked, so it is a member that reports nothing. */
  silent: boolean;
  kuboError: string;
  /** The status that it reports for a CID. Without an entry: pinned if allocated to it or everywhere, else remote. */
  readonly statuses: Map<string, string>;
  /** CIDs that its own copy of the pinset lacks: missing in the bulk list, `unpinned` in the single status. */
  readonly diverged: Set<string>;
}

/**
 * What becomes of a call. `drop`: the connection closes, and nothing is done. `lose`: it is done, and the answer is lost.
 * A number: the connection closes, and it is done after so many milliseconds.
 */
export type GateDecision = "apply" | "drop" | "lose" | number;

/** An ipfs-cluster REST API over a pinset in memory, with the real one's trailers, 204s and faults. */
export interface ClusterDouble {
  readonly url: string;
  readonly pins: Map<string, DoublePin>;
  readonly peers: DoublePeer[];
  readonly faults: { allocations?: ListFault; status?: ListFault };
  /** The error that a peer reports with the status of a CID. */
  readonly errors: Map<string, string>;
  /** True: a recover leaves `statuses` as they are. */
  keepsStatuses: boolean;
  /** CIDs whose direct mode makes the bulk status wrong (tracker bug) but not the single one. */
  readonly misreported: Set<string>;
  /** CIDs whose single status is answered with 500. */
  readonly brokenStatus: Set<string>;
  /** Runs once, just before the next status list is made, as an event between two lists. */
  beforeStatus: (() => void) | null;
  /** Runs once, after the next status list was made. */
  afterStatus: (() => void) | null;
  /** `METHOD path` of every request. */
  readonly requests: string[];
  /** Other answers to a POST of a pin, by CID. Each is used `times` times. */
  readonly refusals: Map<string, { readonly status: number; readonly message: string; times: number }>;
  /** A path with more bytes is answered with 431. */
  pathLimit: number;
  /** After so many POSTs of pins, the server closes the connection of each further one. Infinity: never. */
  pinsUntilGone: number;
  /** Decides about each POST and DELETE of a pin, once its promise resolves. */
  gate: ((method: string, cid: string) => Promise<GateDecision>) | null;
  /** The `user:password` that a request must have. */
  auth: string | null;
  stop(): Promise<void>;
}

/** The API's own form of a pin. */
export function apiPin(pin: DoublePin): Readonly<Record<string, unknown>> {
  return {
    replication_factor_min: -1,
    replication_factor_max: -1,
    name: "",
    mode: "recursive",
    shard_size: 0,
    user_allocations: null,
    expire_at: "0001-01-01T00:00:00Z",
    metadata: null,
    pin_update: null,
    origins: [],
    type: "pin",
    allocations: [],
    max_depth: -1,
    reference: null,
    timestamp: "2026-01-01T00:00:00Z",
    ...pin,
  };
}

/** Starts a double on a free port of the loopback. */
export async function startClusterDouble(options: {
  readonly pins?: readonly DoublePin[];
  readonly peers?: number;
  /** By default a free one. */
  readonly port?: number;
}): Promise<ClusterDouble> {
  const double = new Double(options.pins ?? [], options.peers ?? 1);
  await double.listen(options.port ?? 0);
  return double;
}

class Double implements ClusterDouble {
  readonly pins: Map<string, DoublePin>;
  readonly peers: DoublePeer[];
  readonly faults: { allocations?: ListFault; status?: ListFault } = {};
  readonly errors = new Map<string, string>();
  keepsStatuses = false;
  readonly misreported = new Set<string>();
  readonly brokenStatus = new Set<string>();
  readonly requests: string[] = [];
  beforeStatus: (() => void) | null = null;
  afterStatus: (() => void) | null = null;
  auth: string | null = null;
  url = "";
  readonly refusals = new Map<string, { readonly status: number; readonly message: string; times: number }>();
  pathLimit = 8000;
  pinsUntilGone = Infinity;
  gate: ((method: string, cid: string) => Promise<GateDecision>) | null = null;
  readonly #server = createServer({ maxHeaderSize: 4 * 1024 * 1024 }, (request, response) =>
    this.#answer(request, response),
  );
  readonly #sockets = new Set<Socket>();
  #identityFails = false;

  constructor(pins: readonly DoublePin[], peers: number) {
    this.pins = new Map(pins.map((pin) => [pin.cid, pin]));
    this.peers = Array.from({ length: peers }, (_, index) => ({
      id: `12D3KooWPeer${index}`,
      name: index === 0 ? "master" : `follower-${index}`,
      present: true,
      silent: false,
      kuboError: "",
      statuses: new Map<string, string>(),
      diverged: new Set<string>(),
    }));
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
  }

  async listen(port: number): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(port, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? "/", "http://double");
    this.requests.push(`${request.method} ${url.pathname}`);
    if ((request.url ?? "").length > this.pathLimit) {
      response.writeHead(431, { connection: "close" }).end();
      return;
    }
    if (
      this.auth !== null &&
      request.headers.authorization !== `Basic ${Buffer.from(this.auth).toString("base64")}`
    ) {
      return sendJson(response, 401, { code: 401, message: "Unauthorized" });
    }
    const parts = url.pathname.split("/").slice(1).map(decodeURIComponent);
    const [first = "", second, third] = parts;
    if (request.method === "POST" && third === "recover") return this.#recover(response, second ?? "");
    if (request.method === "POST" && first === "pins") {
      const direct = second === "ipfs" && url.searchParams.get("mode") === "direct";
      const cid = (second === "ipfs" ? third : second) ?? "";
      return this.#gated(request, response, cid, () => this.#pin(response, cid, url.searchParams, direct));
    }
    if (request.method === "DELETE" && first === "pins")
      return this.#gated(request, response, second ?? "", () => this.#unpin(response, second ?? ""));
    if (first === "id" && this.#identityFails) {
      this.#identityFails = false;
      return sendJson(response, 500, { code: 500, message: "shutting down" });
    }
    if (first === "id") return sendJson(response, 200, this.#identity(this.peers[0] as DoublePeer));
    if (first === "peers")
      return this.#list(
        response,
        this.#members().map((peer) => this.#identity(peer)),
        undefined,
      );
    if (first === "monitor") return sendJson(response, 200, this.#metrics(third ?? ""));
    if (first === "allocations" && second === undefined) {
      return this.#list(response, [...this.pins.values()].map(apiPin), this.faults.allocations);
    }
    if (first === "allocations") return this.#allocation(response, second ?? "");
    if (first === "pins" && second === undefined) return this.#statuses(response);
    if (first === "pins" && this.brokenStatus.has(second ?? ""))
      return sendJson(response, 500, { code: 500, message: "context deadline exceeded" });
    if (first === "pins") return sendJson(response, 200, this.#status(second ?? "", false));
    sendJson(response, 404, { code: 404, message: "not found" });
  }

  #gated(request: IncomingMessage, response: ServerResponse, cid: string, apply: () => void): void {
    if (this.gate === null) return apply();
    void this.gate(request.method ?? "", cid).then((decision) => {
      if (decision === "apply" || decision === "lose") apply();
      if (decision !== "apply") response.socket?.destroy();
      if (typeof decision === "number") setTimeout(apply, decision);
    });
  }

  #members(): readonly DoublePeer[] {
    return this.peers.filter((peer) => peer.present);
  }

  #identity(peer: DoublePeer): unknown {
    return {
      id: peer.id,
      addresses: [],
      cluster_peers: this.#members().map((member) => member.id),
      version: "1.1.6",
      error: "",
      ipfs: { id: `ipfs-${peer.id}`, addresses: [], error: peer.kuboError },
      peername: peer.name,
    };
  }

  #metrics(name: string): unknown {
    const value = name === "freespace" ? "1000000" : "{}";
    return this.#members().map((peer) => ({ name, peer: peer.id, value, valid: true }));
  }

  #allocation(response: ServerResponse, cid: string): void {
    const pin = this.pins.get(cid);
    if (pin === undefined)
      return sendJson(response, 404, { code: 404, message: "pin is not part of the pinset" });
    sendJson(response, 200, apiPin(pin));
  }

  #status(cid: string, bulk: boolean): unknown {
    const pin = this.pins.get(cid);
    const allocations = (pin?.["allocations"] as readonly string[] | undefined) ?? [];
    const everywhere = ((pin?.["replication_factor_min"] as number | undefined) ?? -1) < 0;
    const map: Record<string, unknown> = {};
    for (const peer of this.#members()) {
      if (peer.silent) continue;
      const diverged = peer.diverged.has(cid);
      if (bulk && diverged) continue;
      const wanted = !diverged && pin !== undefined && (everywhere || allocations.includes(peer.id));
      const usual = wanted ? "pinned" : pin === undefined || diverged ? "unpinned" : "remote";
      const reported = bulk && wanted && this.misreported.has(cid) ? "unexpectedly_unpinned" : undefined;
      const status = reported ?? peer.statuses.get(cid) ?? usual;
      map[peer.id] = {
        peername: peer.name,
        status,
        timestamp: "2026-01-01T00:00:00Z",
        error: this.errors.get(cid) ?? "",
        attempt_count: 0,
      };
    }
    if (!bulk) {
      for (const id of allocations)
        map[id] ??= { peername: "", status: "cluster_error", error: "dial", attempt_count: 0 };
    }
    const confused = !bulk && this.#members().some((peer) => peer.diverged.has(cid));
    return {
      cid,
      name: pin?.["name"] ?? "",
      allocations: confused ? null : allocations,
      origins: [],
      metadata: null,
      peer_map: map,
    };
  }

  #statuses(response: ServerResponse): void {
    this.beforeStatus?.();
    this.beforeStatus = null;
    const known = [...this.pins.keys()].filter((cid) => {
      return this.#members().some((peer) => !peer.silent && !peer.diverged.has(cid));
    });
    this.#list(
      response,
      known.map((cid) => this.#status(cid, true)),
      this.faults.status,
    );
    this.afterStatus?.();
    this.afterStatus = null;
  }

  #recover(response: ServerResponse, cid: string): void {
    if (!this.keepsStatuses) for (const peer of this.peers) peer.statuses.delete(cid);
    sendJson(response, 200, this.#status(cid, false));
  }

  /** Like the real one, it replaces an existing pin completely, and refuses an expiry in the past. */
  #pin(response: ServerResponse, cid: string, query: URLSearchParams, direct: boolean): void {
    this.pinsUntilGone -= 1;
    if (this.pinsUntilGone < 0) {
      response.socket?.destroy();
      return;
    }
    const refusal = this.refusals.get(cid);
    if (refusal !== undefined && refusal.times > 0) {
      refusal.times -= 1;
      return sendJson(response, refusal.status, { code: refusal.status, message: refusal.message });
    }
    const number = (name: string): number => Number(query.get(name) ?? -1);
    const metadata = [...query].filter(([key]) => key.startsWith("meta-"));
    const pin: DoublePin = {
      cid,
      name: query.get("name") ?? "",
      mode: direct ? "direct" : "recursive",
      max_depth: direct ? 0 : -1,
      replication_factor_min: number("replication-min"),
      replication_factor_max: number("replication-max"),
      expire_at: query.get("expire-at") ?? "0001-01-01T00:00:00Z",
      metadata: Object.fromEntries(metadata.map(([key, value]) => [key.slice("meta-".length), value])),
      origins: query.get("origins")?.split(",") ?? [],
      allocations: query.get("user-allocations")?.split(",") ?? [],
      timestamp: "2026-02-02T00:00:00Z",
    };
    this.pins.set(cid, pin);
    sendJson(response, 200, apiPin(pin));
  }

  #unpin(response: ServerResponse, cid: string): void {
    if (!/^[A-Za-z0-9]+$/.test(cid)) return sendJson(response, 400, { code: 400, message: "invalid CID" });
    const pin = this.pins.get(cid);
    if (pin === undefined)
      return sendJson(response, 404, { code: 404, message: "pin is not part of the pinset" });
    this.pins.delete(cid);
    sendJson(response, 200, apiPin(pin));
  }

  #list(response: ServerResponse, items: readonly unknown[], fault: ListFault | undefined): void {
    if (fault?.kind === "first-error") return sendJson(response, 500, { code: 500, message: fault.message });
    if (items.length === 0 || fault?.kind === "nothing") {
      response.writeHead(204, { "content-type": "application/json" }).end();
      return;
    }
    const headers = { "content-type": "application/json" };
    response.writeHead(
      200,
      fault?.kind === "no-trailer" ? headers : { ...headers, trailer: "X-Stream-Error" },
    );
    const lastLine = fault?.kind === "cut" || fault?.kind === "stall" ? fault.afterLines : items.length;
    for (const item of items.slice(0, lastLine)) response.write(`${JSON.stringify(item)}\n`);
    if (fault?.kind === "stall") return;
    if (fault?.kind === "cut") {
      const socket = response.socket as Socket;
      response.write("", () => (fault.how === "fin" ? socket.end() : socket.resetAndDestroy()));
      return;
    }
    if (fault?.kind === "garbage") response.write(`${fault.line}\n`);
    if (fault?.kind === "stops-listening") this.#server.close();
    if (fault?.kind === "answers-500-afterwards") this.#identityFails = true;
    if (fault?.kind !== "no-trailer") {
      const late =
        fault?.kind === "late-error" ? [["X-Stream-Error", fault.message] as [string, string]] : [];
      response.addTrailers([["X-Stream-Error", ""], ...late]);
    }
    response.end();
  }
}

function sendJson(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}
