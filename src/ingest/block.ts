import type { IncomingMessage } from "node:http";
import { isExpired, isWalletToken, NO_JWT, readBearer, readClaims } from "../accounts/api-key.ts";
import type { BlockPut, KuboBlocks } from "../cluster/kubo.ts";
import type { Log } from "../errors.ts";
import type { Blake3, GrowingHash } from "./blake3.ts";
import { clientOf } from "../services/rate-limit.ts";
import type { QuotaRefusal } from "../settings/quota.ts";
import { type BodyLimits, type BufferPool, readBody } from "./body.ts";
import { type BlockCid, blockCidOf, parseBlockCid } from "./cid.ts";
import type { QuotaGate } from "./quota-gate.ts";
import type { Slots } from "./slots.ts";
import type { Claim, Space } from "./space.ts";

/** A response before it is sent. `body` becomes JSON. */
export interface Reply {
  readonly status: number;
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** What is needed to accept a block. */
export interface BlockDeps {
  readonly slots: Slots;
  readonly startHash: Blake3["start"];
  readonly kubo: Pick<KuboBlocks, "openPut">;
  /** Null: every client may store blocks (tests only). */
  readonly quota: QuotaGate | null;
  /** Each buffer has the size of the largest allowed block. */
  readonly buffers: BufferPool;
  readonly space: Space;
  readonly limits: BodyLimits;
  readonly log: Log;
}

/**
 * Handles `PUT /v0/block?cid=`. Nothing is stored before the bytes match the CID. What costs nothing is checked first: the
 * CID, the form of the token, the declared length. Then the quota, then a slot and the space. The status codes are those of
 * fula-ingest (functionland/fula-ota, docker/fula-ingest). 401 and 403 from the storage API, 408 for a slow client, 429 and
 * 503 for a share that is used up, and 507 for a full node are our additions. `disconnected` is aborted when the client no
 * longer waits for the response.
 */
export async function answerBlock(
  request: IncomingMessage,
  disconnected: AbortSignal,
  deps: BlockDeps,
): Promise<Reply> {
  if (request.method !== "PUT" && request.method !== "POST") {
    return { ...refusal(405, "use PUT"), headers: { allow: "PUT, POST" } };
  }
  const declared = declaredCid(request.url ?? "");
  if (typeof declared === "string") return refusal(400, declared);
  const owner = deps.quota === null ? "" : readToken(request);
  if (typeof owner !== "string") return owner;
  if ((declaredBytes(request) ?? 0) > deps.buffers.sizeBytes) return tooLarge(deps);
  const client = clientOf(request);
  const decision = deps.quota === null ? ALLOWED : await deps.quota(owner, client);
  if (!decision.allowed) return quotaRefusal(decision);
  const release = await deps.slots.take([`token ${owner}`, `address ${client}`], disconnected);
  if (release === null) return busy();
  try {
    return await acceptBlock(request, declared, deps);
  } finally {
    release();
  }
}

const ALLOWED = { allowed: true } as const;

/** The request's token if it has the form of an API key or a wallet token and has not expired; otherwise the reply. */
function readToken({ headers }: IncomingMessage): string | Reply {
  const token = readBearer(headers.authorization);
  if (token === null) return unauthorized("a bearer token is missing");
  const claims = readClaims(token);
  if (claims === null || (claims === NO_JWT && !isWalletToken(token)))
    return unauthorized("the token is not an API key");
  return isExpired(claims, new Date()) ? unauthorized("the token has expired") : token;
}

function unauthorized(error: string): Reply {
  return { ...refusal(401, error), headers: { "www-authenticate": "Bearer" } };
}

function quotaRefusal({ status, why, retryAfterSeconds }: QuotaRefusal): Reply {
  if (status === 401) return unauthorized(why);
  const headers = retryAfterSeconds === undefined ? {} : { "retry-after": String(retryAfterSeconds) };
  return { ...refusal(status, why), headers };
}

function busy(): Reply {
  const reply = refusal(503, "too many blocks are being uploaded; try again in a moment");
  return { ...reply, headers: { "retry-after": "1" } };
}

function tooLarge({ buffers }: BlockDeps): Reply {
  return refusal(413, `the block has more than ${buffers.sizeBytes} bytes`);
}

async function acceptBlock(request: IncomingMessage, declared: BlockCid, deps: BlockDeps): Promise<Reply> {
  const result = await deps.space.claim(declaredBytes(request) ?? deps.buffers.sizeBytes);
  if (result.kind === "unknown") return refusal(502, "kubo: it does not report its space");
  if (result.kind === "full") return refusal(507, "this node is full; upload to another one");
  const { claim } = result;
  try {
    return await deps.buffers.use((buffer) => readAndStore(request, declared, { buffer, claim }, deps));
  } finally {
    claim.settle(0);
  }
}

async function readAndStore(
  request: IncomingMessage,
  declared: BlockCid,
  { buffer, claim }: { readonly buffer: Buffer; readonly claim: Claim },
  deps: BlockDeps,
): Promise<Reply> {
  const put = deps.kubo.openPut(declaredBytes(request));
  const hash = deps.startHash();
  try {
    const body = await readBody(request, buffer, deps.limits, (bytes) => {
      put.relay(bytes);
      hash.add(bytes);
    });
    if (body.kind === "too-large") return tooLarge(deps);
    if (body.kind === "too-slow") return refusal(408, "the block arrived too slowly");
    if (body.kind === "aborted") return refusal(400, "the upload was aborted");
    if (body.bytes.length === 0) return refusal(400, "the block is empty");
    return await store(declared, body.bytes, { put, hash, claim }, deps.log);
  } finally {
    put.abandon();
  }
}

async function store(
  declared: BlockCid,
  bytes: Buffer,
  { put, hash, claim }: { readonly put: BlockPut; readonly hash: GrowingHash; readonly claim: Claim },
  log: BlockDeps["log"],
): Promise<Reply> {
  const digestHex = hash.digest(bytes);
  if (digestHex !== declared.digestHex) {
    const error = "the bytes do not match the cid; nothing was stored";
    return { status: 422, body: { error, declared: declared.text, actual: blockCidOf(digestHex).text } };
  }
  const done = await put.store(bytes);
  // A failure may come after kubo has stored the block.
  claim.settle(bytes.length);
  if (done.kind === "failed") {
    log(`kubo did not store a block of ${bytes.length} bytes: ${done.why}`, "warn");
    return refusal(502, `kubo: ${done.why}`);
  }
  if (!isSameBlock(done.key, declared)) {
    log("kubo returned another cid for a block than the verified one", "warn");
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
