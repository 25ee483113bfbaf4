import type { IncomingMessage } from "node:http";
import { readBearer } from "../accounts/api-key.ts";
import type { BlockPut, KuboBlocks } from "../cluster/kubo.ts";
import type { HashBlake3 } from "../machine/blake3.ts";
import { type BlockCid, blockCidOf, parseBlockCid } from "./cid.ts";
import type { QuotaGate } from "./quota-gate.ts";
import type { Slots } from "./slots.ts";

/** A response before it is sent. `body` becomes JSON. */
export interface Reply {
  readonly status: number;
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** What is needed to accept a block. */
export interface BlockDeps {
  readonly slots: Slots;
  readonly hash: HashBlake3;
  readonly kubo: Pick<KuboBlocks, "openPut">;
  /** Null: every client may store blocks (tests only). */
  readonly quota: QuotaGate | null;
  /** Each buffer has the size of the largest allowed block. */
  readonly buffers: BufferPool;
  readonly limits: BodyLimits;
  readonly log: (line: string) => void;
}

/**
 * Handles `PUT /v0/block?cid=`. Nothing is stored before the bytes match the CID. The order of the checks and the status
 * codes are those of fula-ingest (functionland/fula-ota, docker/fula-ingest). 503 for a full queue and 408 for a slow
 * client are our additions. `disconnected` is aborted when the client no longer waits for the response.
 */
export async function answerBlock(
  request: IncomingMessage,
  disconnected: AbortSignal,
  deps: BlockDeps,
): Promise<Reply> {
  if (request.method !== "PUT" && request.method !== "POST") {
    return { ...refusal(405, "use PUT"), headers: { allow: "PUT, POST" } };
  }
  const release = await deps.slots.take(disconnected);
  if (release === null) {
    const reply = refusal(503, "too many blocks are being uploaded; try again in a moment");
    return { ...reply, headers: { "retry-after": "1" } };
  }
  try {
    return await acceptBlock(request, deps);
  } finally {
    release();
  }
}

async function acceptBlock(request: IncomingMessage, deps: BlockDeps): Promise<Reply> {
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
  return await deps.buffers.use((buffer) => readAndStore(request, declared, buffer, deps));
}

async function readAndStore(
  request: IncomingMessage,
  declared: BlockCid,
  buffer: Buffer,
  deps: BlockDeps,
): Promise<Reply> {
  const put = deps.kubo.openPut(declaredBytes(request));
  try {
    const body = await readBody(request, buffer, deps.limits, (bytes) => put.relay(bytes));
    if (body.kind === "too-large") return refusal(413, `the block has more than ${buffer.length} bytes`);
    if (body.kind === "too-slow") return refusal(408, "the block arrived too slowly");
    if (body.kind === "aborted") return refusal(400, "the upload was aborted");
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
    const error = "the bytes do not match the cid; nothing was stored";
    return { status: 422, body: { error, declared: declared.text, actual: blockCidOf(digestHex).text } };
  }
  const done = await put.store(bytes);
  if (done.kind === "failed") {
    log(`kubo did not store a block of ${bytes.length} bytes: ${done.why}`);
    return refusal(502, `kubo: ${done.why}`);
  }
  if (!isSameBlock(done.key, declared)) {
    log(`kubo returned the cid ${done.key} for the block ${declared.text}`);
    const error = "kubo returned a different cid";
    return { status: 500, body: { error, kubo: done.key, declared: declared.text } };
  }
  return { status: 200, body: { cid: declared.text, size: bytes.length } };
}

function isSameBlock(key: string, declared: BlockCid): boolean {
  if (key === declared.text) return true;
  const named = parseBlockCid(key);
  return named.kind === "cid" && named.cid.digestHex === declared.digestHex;
}

/** The request's declared length, or null. Node ends the connection of a client that sends a different length. */
function declaredBytes({ headers }: IncomingMessage): number | null {
  const length = headers["content-length"];
  return length === undefined ? null : Number(length);
}

/** The CID in the query, or the problem with it. */
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
  /** The longest time without data from the client. */
  readonly stallMs: number;
  readonly totalMs: number;
}

/** The result of reading a body. `aborted`: the client disconnected. */
type Body =
  | { readonly kind: "complete"; readonly bytes: Buffer }
  | { readonly kind: "too-large" }
  | { readonly kind: "too-slow" }
  | { readonly kind: "aborted" };

/**
 * Reads a request's body into `buffer`, whose length is the limit. `onData` gets all bytes so far each time more have
 * arrived. Chunks are copied: if they were kept, a body sent in single bytes would take a hundred times its size, and
 * garbage collection would cost more than the copies.
 */
function readBody(
  request: IncomingMessage,
  buffer: Buffer,
  limits: BodyLimits,
  onData: (bytes: Buffer) => void,
): Promise<Body> {
  if (Number(request.headers["content-length"] ?? 0) > buffer.length) {
    return Promise.resolve({ kind: "too-large" });
  }
  return new Promise((resolve) => {
    let filled = 0;
    const finish = (body: Body): void => {
      clearTimeout(total);
      clearTimeout(stall);
      request.off("data", take).off("end", end).off("close", abort);
      resolve(body);
    };
    const take = (part: Buffer): void => {
      stall.refresh();
      if (filled + part.length > buffer.length) return finish({ kind: "too-large" });
      part.copy(buffer, filled);
      filled += part.length;
      onData(buffer.subarray(0, filled));
    };
    const end = (): void => finish({ kind: "complete", bytes: buffer.subarray(0, filled) });
    const abort = (): void => finish({ kind: "aborted" });
    const giveUp = (): void => finish({ kind: "too-slow" });
    const total = setTimeout(giveUp, limits.totalMs);
    const stall = setTimeout(giveUp, limits.stallMs);
    request.on("data", take).on("end", end).on("close", abort);
    if (request.destroyed) abort();
  });
}

/** Reusable buffers of one size. It creates as many as are used at the same time. */
export class BufferPool {
  readonly #sizeBytes: number;
  readonly #free: Buffer[] = [];

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes;
  }

  /** Gives `use` a buffer until its promise settles. The buffer is then reused, so do not keep a reference. */
  async use<T>(use: (buffer: Buffer) => Promise<T>): Promise<T> {
    const buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#sizeBytes);
    try {
      return await use(buffer);
    } finally {
      this.#free.push(buffer);
    }
  }
}
