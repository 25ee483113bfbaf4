import type { IncomingMessage } from "node:http";
import type { BlockPut, KuboBlocks } from "../cluster/kubo.ts";
import type { HashBlake3 } from "../machine/blake3.ts";
import type { Reply } from "../services/router.ts";
import { type BodyLimits, readBody, type Rooms } from "./body.ts";
import { type BlockCid, blockCidOf, parseBlockCid } from "./cid.ts";
import type { QuotaGate } from "./quota.ts";
import type { Slots } from "./slots.ts";

/** What a block is taken in with. */
export interface BlockHands {
  readonly slots: Slots;
  readonly hash: HashBlake3;
  readonly kubo: Pick<KuboBlocks, "openPut">;
  /** Null: whoever comes may store (tests only). */
  readonly quota: QuotaGate | null;
  /** Each as large as a block may be. */
  readonly rooms: Rooms;
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
  hands: BlockHands,
): Promise<Reply> {
  if (request.method !== "PUT" && request.method !== "POST") {
    return { ...refusal(405, "use PUT"), headers: { allow: "PUT, POST" } };
  }
  const release = await hands.slots.take(gone);
  if (release === null) {
    const reply = refusal(503, "too many blocks are on their way here; try again in a moment");
    return { ...reply, headers: { "retry-after": "1" } };
  }
  try {
    return await takeIn(request, hands);
  } finally {
    release();
  }
}

async function takeIn(request: IncomingMessage, hands: BlockHands): Promise<Reply> {
  const declared = declaredCid(request.url ?? "");
  if (typeof declared === "string") return refusal(400, declared);
  if (hands.quota !== null) {
    const token = bearerToken(request.headers.authorization);
    if (token === null) {
      return { ...refusal(401, "a bearer token is missing"), headers: { "www-authenticate": "Bearer" } };
    }
    const decision = await hands.quota(token);
    if (!decision.allowed) return refusal(402, decision.why);
  }
  return await hands.rooms.lend((room) => readAndStore(request, declared, room, hands));
}

async function readAndStore(
  request: IncomingMessage,
  declared: BlockCid,
  room: Buffer,
  hands: BlockHands,
): Promise<Reply> {
  const put = hands.kubo.openPut(declaredBytes(request));
  try {
    const body = await readBody(request, room, hands.limits, (bytes) => put.relay(bytes));
    if (body.kind === "too-large") return refusal(413, `the block has more than ${room.length} bytes`);
    if (body.kind === "too-slow") return refusal(408, "the block came too slowly");
    if (body.kind === "lost") return refusal(400, "the block broke off");
    if (body.bytes.length === 0) return refusal(400, "the block is empty");
    return await store(declared, body.bytes, put, hands);
  } finally {
    put.abandon();
  }
}

async function store(
  declared: BlockCid,
  bytes: Buffer,
  put: BlockPut,
  { hash, log }: BlockHands,
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

/** The token of `Authorization: Bearer TOKEN` (RFC 6750), or null. */
function bearerToken(header: string | undefined): string | null {
  return /^Bearer +(\S+)$/i.exec(header ?? "")?.[1] ?? null;
}

function refusal(status: number, error: string): Reply {
  return { status, body: { error } };
}
