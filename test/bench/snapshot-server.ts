import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo, Socket } from "node:net";

/**
 * A cluster of generated pins for measurements, in its own process: `snapshot-server.ts PINS PACE`. Its lists have the
 * framing of the real server: one chunk per line, and the trailer. PACE is the maximum of lines per second of /allocations;
 * 0: as fast as possible. /pins first sends nothing, like the real one while it asks the peers, then sends at half the pace
 * (measured with ipfs-cluster 1.1.6: 100,000 lines/s; 17 us of silence per pin, then 50,000 lines/s). Prints its port.
 */
const PINS = Number(process.argv[2]);
const PACE = Number(process.argv[3] ?? 0);
const PEERS = [
  "12D3KooWAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
  "12D3KooWBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB",
];
const ALPHABET = Buffer.from("abcdefghijklmnopqrstuvwxyz234567");
const CID_PREFIX = "bafkrei";
const CID_HOLE = "x".repeat(52);
const NUMBER_HOLE = "00000000";
const BLOCK_LINES = 256;

const allocation = JSON.stringify({
  replication_factor_min: 2,
  replication_factor_max: 3,
  name: `file-${NUMBER_HOLE}`,
  mode: "recursive",
  shard_size: 0,
  user_allocations: null,
  expire_at: "0001-01-01T00:00:00Z",
  metadata: { owner: "user-17" },
  pin_update: null,
  origins: null,
  cid: `${CID_PREFIX}${CID_HOLE}`,
  type: "pin",
  allocations: PEERS,
  max_depth: -1,
  reference: null,
  timestamp: "2026-01-01T00:00:00Z",
});
const claim = (name: string): object => ({
  peername: name,
  ipfs_peer_id: PEERS[0],
  ipfs_peer_addresses: [],
  status: "pinned",
  timestamp: "2026-01-01T00:00:00Z",
  error: "",
  attempt_count: 0,
  priority_pin: false,
});
const status = JSON.stringify({
  cid: `${CID_PREFIX}${CID_HOLE}`,
  name: `file-${NUMBER_HOLE}`,
  allocations: PEERS,
  origins: null,
  created: "2026-01-01T00:00:00Z",
  metadata: { owner: "user-17" },
  peer_map: { [PEERS[0] as string]: claim("one"), [PEERS[1] as string]: claim("two") },
});

/** Pins that were sent to it, if it started empty. */
const received = new Set<string>();
let serving = PINS;

createServer((request, response) => {
  const path = request.url ?? "";
  const answer = (body: unknown): void => void response.end(`${JSON.stringify(body)}\n`);
  if (request.method === "POST" && path === "/empty") {
    serving = 0;
    received.clear();
    return answer({});
  }
  if (request.method === "POST") {
    const cid = path.slice("/pins/".length, path.indexOf("?"));
    received.add(cid);
    return answer({ cid, type: "pin", name: "" });
  }
  if (path === "/received") return answer({ received: received.size });
  if (path.startsWith("/id")) return answer(identity(0));
  if (path.startsWith("/monitor/"))
    return answer(PEERS.map((peer) => ({ name: "ping", peer, value: "1", valid: true })));
  if (path === "/peers")
    return void list(request, linesOf(PEERS.map((_, index) => JSON.stringify(identity(index)))), 0);
  if (path === "/allocations" && serving === 0) {
    const lines = [...received].map((cid) => allocation.replace(CID_PREFIX + CID_HOLE, cid));
    if (lines.length > 0) return void list(request, linesOf(lines), 0);
    response.statusCode = 204;
    return void response.end();
  }
  if (path === "/allocations") return void list(request, generate(allocation), PACE);
  if (path === "/pins") {
    const silenceMs = PACE > 0 ? (PINS / PACE) * 1700 : 0;
    return void setTimeout(() => void list(request, generate(status), PACE / 2), silenceMs);
  }
  response.statusCode = 404;
  answer({ code: 404, message: "not found" });
}).listen(0, "127.0.0.1", function (this: { address(): unknown }) {
  console.log((this.address() as AddressInfo).port);
});

function identity(index: number): object {
  return {
    id: PEERS[index],
    peername: `node-${index}`,
    version: "1.1.6",
    error: "",
    ipfs: { error: "" },
    cluster_peers: PEERS,
  };
}

interface Block {
  readonly bytes: Buffer;
  readonly lines: number;
}

function* linesOf(lines: readonly string[]): Generator<Block> {
  for (const line of lines) yield { bytes: Buffer.from(frame(line)), lines: 1 };
}

function frame(line: string): string {
  return `${(Buffer.byteLength(line) + 1).toString(16)}\r\n${line}\n\r\n`;
}

/** The lines of all pins, generated from a block of templates. */
function* generate(template: string): Generator<Block> {
  const framed = frame(template);
  const block = Buffer.from(framed.repeat(BLOCK_LINES));
  const cidAt = framed.indexOf(CID_HOLE);
  const numberAt = framed.indexOf(NUMBER_HOLE);
  for (let first = 0; first < PINS; first += BLOCK_LINES) {
    const lines = Math.min(BLOCK_LINES, PINS - first);
    const bytes = Buffer.from(block.subarray(0, lines * framed.length));
    for (let line = 0; line < lines; line++) fill(bytes, line * framed.length, first + line, cidAt, numberAt);
    yield { bytes, lines };
  }
}

/** A CID that looks as random as a real one (a permutation of the numbers, in base 32), and the number in the name. */
function fill(bytes: Buffer, at: number, number: number, cidAt: number, numberAt: number): void {
  let state = Math.imul(number + 1, 0x9e3779b1) >>> 0;
  for (let i = 0; i < 52; i++) {
    state = (state ^ (state << 13)) >>> 0;
    state = (state ^ (state >>> 17)) >>> 0;
    state = (state ^ (state << 5)) >>> 0;
    bytes[at + cidAt + i] = ALPHABET[state >>> 27] as number;
  }
  let rest = number;
  for (let i = 7; i >= 0; i--) {
    bytes[at + numberAt + i] = 0x30 + (rest % 10);
    rest = Math.floor(rest / 10);
  }
}

async function list(request: IncomingMessage, blocks: Iterable<Block>, pace: number): Promise<void> {
  const socket: Socket = request.socket;
  socket.write(
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTrailer: X-Stream-Error\r\n" +
      "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
  );
  const started = performance.now();
  let sent = 0;
  for (const { bytes, lines } of blocks) {
    if (socket.destroyed) return;
    if (!socket.write(bytes)) await new Promise((resolve) => socket.once("drain", resolve));
    sent += lines;
    const earlyMs = pace > 0 ? (sent / pace) * 1000 - (performance.now() - started) : 0;
    if (earlyMs > 2) await new Promise((resolve) => setTimeout(resolve, earlyMs));
  }
  socket.end("0\r\nX-Stream-Error: \r\n\r\n");
}
