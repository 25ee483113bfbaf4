import type { IncomingMessage } from "node:http";
import { readBearer } from "../accounts/api-key.ts";
import type { BlockPut, KuboBlocks } from "../cluster/kubo.ts";
import type { HashBlake3 } from "../machine/blake3.ts";
import { type BlockCid, blockCidOf, parseBlockCid } from "./cid.ts";
import type { QuotaGate } from "./quota-gate.ts";
import type { Slots } from "./slots.ts";

/** An answer before it is sent: `body` becomes JSON. */
export interface Reply {
  readonly status: number;
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** What a block is taken in with. */
export interface BlockDeps {
  readonly slots: Slots;
  readonly hash: HashBlake3;
  readonly kubo: Pick<KuboBlocks, "openPut">;
  /** Null: whoever comes may store (tests only). */
  readonly quota: QuotaGate | null;
  /** Each as large as a block may be. */
  readonly rooms: BufferPool;
  readonly limits: BodyLimits;
  readonly log: (line: string) => void;
}

/**
 * Answers `PUT /v0/block?cid=`: nothing is stored before its bytes have proved to be what the CID names. Order of the
 * checks and status codes are fula-ingest's (functionland/fula-ota, docker/fula-ingest); 503 for a full line and
 * 408 for a slow client are ours. `gone`: aborted once nobody waits for the answer.
 */
export async function answerBlock(
  request: IncomingMessage,
  gone: AbortSignal,
  deps: BlockDeps,
): Promise<Reply> {
  if (request.method !== "PUT" && request.method !== "POST") {
    return { ...refusal(405, "use PUT"), headers: { allow: "PUT, POST" } };
  }
  const release = await deps.slots.take(gone);
  if (release === null) {
    const reply = refusal(503, "too many blocks are on their way here; try again in a moment");
    return { ...reply, headers: { "retry-after": "1" } };
  }
  try {
    return await takeIn(request, deps);
  } finally {
    release();
  }
}

async function takeIn(request: IncomingMessage, deps: BlockDeps): Promise<Reply> {
  const declared = declaredCid(request.url ?? "");
  if (typeof declared === "string") return refusal(400, declared);
  if (deps.quota !== null) {
    const token = readBearer(request.headers.authorization);
    if (token === null) {
      return { ...refusal(401, "a bearer token is missing"), headers: { "www-authenticate": "Bearer" } };
    }
    const decision = await deps.quota(token);
    if (!decision.allowed) return refusal(402, decision.why);
  }
  return await deps.rooms.use((room) => readAndStore(request, declared, room, deps));
}

async function readAndStore(
  request: IncomingMessage,
  declared: BlockCid,
  room: Buffer,
  deps: BlockDeps,
): Promise<Reply> {
  const put = deps.kubo.openPut(declaredBytes(request));
  try {
    const body = await readBody(request, room, deps.limits, (bytes) => put.relay(bytes));
    if (body.kind === "too-large") return refusal(413, `the block has more than ${room.length} bytes`);
    if (body.kind === "too-slow") return refusal(408, "the block came too slowly");
    if (body.kind === "lost") return refusal(400, "the block broke off");
    if (body.bytes.length === 0) return refusal(400, "the block is empty");
    return await store(declared, body.bytes, put, deps);
  } finally {
    put.abandon();
  }
}

async function store(
  declared: BlockCid,
  bytes: Buffer,
  put: BlockPut,
  { hash, log }: BlockDeps,
): Promise<Reply> {
  const digestHex = hash(bytes);
  if (digestHex !== declared.digestHex) {
    const error = "the bytes are not those that the cid names; nothing was stored";
    return { status: 422, body: { error, declared: declared.text, actual: blockCidOf(digestHex).text } };
  }
  const done = await put.store(bytes);
  if (done.kind === "failed") {
    log(`kubo did not take a block of ${bytes.length} bytes: ${done.why}`);
    return refusal(502, `kubo: ${done.why}`);
  }
  if (!names(done.key, declared)) {
    log(`kubo named a block ${done.key} that is ${declared.text}`);
    const error = "kubo names the block otherwise";
    return { status: 500, body: { error, kubo: done.key, declared: declared.text } };
  }
  return { status: 200, body: { cid: declared.text, size: bytes.length } };
}

function names(key: string, declared: BlockCid): boolean {
  if (key === declared.text) return true;
  const named = parseBlockCid(key);
  return named.kind === "cid" && named.cid.digestHex === declared.digestHex;
}

/** The length that the request's head promises, or null; a client that sends another is cut off by node. */
function declaredBytes({ headers }: IncomingMessage): number | null {
  const length = headers["content-length"];
  return length === undefined ? null : Number(length);
}

/** The CID of the query, or what is wrong with it. */
function declaredCid(url: string): BlockCid | string {
  const query = url.includes("?") ? url.slice(url.indexOf("?")) : "";
  const text = new URLSearchParams(query).get("cid") ?? "";
  if (text === "") return "the query has no cid";
  const parsed = parseBlockCid(text);
  return parsed.kind === "cid" ? parsed.cid : `the cid is invalid: it ${parsed.why}`;
}

function refusal(status: number, error: string): Reply {
  return { status, body: { error } };
}

/** How long reading a body may take. */
export interface BodyLimits {
  /** Longest silence of the client. */
  readonly stallMs: number;
  readonly totalMs: number;
}

/** What came of reading a body; `lost`: the client broke it off. */
type Body =
  | { readonly kind: "whole"; readonly bytes: Buffer }
  | { readonly kind: "too-large" }
  | { readonly kind: "too-slow" }
  | { readonly kind: "lost" };

/**
 * Reads a request's body into `room`, whose length is the bound on it. `grown` gets what is there each time
 * more has come. Parts are copied: kept as they come, a body of single bytes would hold a hundred times its
 * size, and the collector of garbage would cost more than the copies.
 */
function readBody(
  request: IncomingMessage,
  room: Buffer,
  limits: BodyLimits,
  grown: (bytes: Buffer) => void,
): Promise<Body> {
  if (Number(request.headers["content-length"] ?? 0) > room.length) {
    return Promise.resolve({ kind: "too-large" });
  }
  return new Promise((resolve) => {
    let filled = 0;
    const finish = (body: Body): void => {
      clearTimeout(total);
      clearTimeout(stall);
      request.off("data", take).off("end", end).off("close", lose);
      resolve(body);
    };
    const take = (part: Buffer): void => {
      stall.refresh();
      if (filled + part.length > room.length) return finish({ kind: "too-large" });
      part.copy(room, filled);
      filled += part.length;
      grown(room.subarray(0, filled));
    };
    const end = (): void => finish({ kind: "whole", bytes: room.subarray(0, filled) });
    const lose = (): void => finish({ kind: "lost" });
    const giveUp = (): void => finish({ kind: "too-slow" });
    const total = setTimeout(giveUp, limits.totalMs);
    const stall = setTimeout(giveUp, limits.stallMs);
    request.on("data", take).on("end", end).on("close", lose);
    if (request.destroyed) lose();
  });
}

/** Buffers of one size, used again: as many come to be as are taken at once. */
export class BufferPool {
  readonly #sizeBytes: number;
  readonly #free: Buffer[] = [];

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes;
  }

  /** Lends one to `use` until its promise is settled; what is left in it is garbage then. */
  async use<T>(use: (room: Buffer) => Promise<T>): Promise<T> {
    const room = this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#sizeBytes);
    try {
      return await use(room);
    } finally {
      this.#free.push(room);
    }
  }
}
