import { randomBytes } from "node:crypto";
import { messageOf } from "../errors.ts";
import {
  type Answer,
  HttpClient,
  type OpenRequest,
  parseJson,
  StaleConnection,
} from "../machine/http-client.ts";

/** What became of a block: kubo's own name for it, or why it has none. */
export type PutBlock =
  | { readonly kind: "stored"; readonly key: string }
  | { readonly kind: "failed"; readonly why: string };

/** One block on its way into kubo. */
export interface BlockPut {
  /** Passes on what has come of it, from its first byte on, but for its newest bytes: kubo has never all of it. */
  relay(bytes: Buffer): void;
  /** Sends the rest: kubo stores the whole as a raw block named by its BLAKE3 digest, and pins nothing. */
  store(bytes: Buffer): Promise<PutBlock>;
  /** Breaks off what is not stored: kubo refuses a body that ends too early. After `store` it does nothing. */
  abandon(): void;
}

/** Puts blocks into a kubo. */
export interface KuboBlocks {
  /** Begins a block; of one whose size is not known, nothing is passed on before `store`. */
  openPut(sizeBytes: number | null): BlockPut;
  close(): void;
}

/** Less is not worth a packet of its own. */
const RELAY_BYTES = 32_768;
/** Kubo sends no longer answer to a block. */
const MAX_ANSWER_BYTES = 65_536;
/** Names the block as fula-ingest does (functionland/fula-ota, docker/fula-ingest; kubo's RPC reference, block/put). */
const PUT_PATH = "/api/v0/block/put?cid-codec=raw&mhtype=blake3&mhlen=32&pin=false";

/** Opens kubo's RPC API for blocks; `timeoutMs` bounds the time from a block's end to the answer. Nothing is sent yet. */
export function openKubo(
  url: string,
  options: { readonly connections: number; readonly timeoutMs: number },
): KuboBlocks {
  const { connections, timeoutMs } = options;
  const client = new HttpClient({ url, connections, connectTimeoutMs: timeoutMs });
  const boundary = `fula-node-${randomBytes(16).toString("hex")}`;
  const head = Buffer.from(
    `--${boundary}\r\ncontent-disposition: form-data; name="data"; filename="blob"\r\n` +
      "content-type: application/octet-stream\r\n\r\n",
  );
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`);

  function open(sizeBytes: number): OpenRequest {
    const headers = {
      "content-type": `multipart/form-data; boundary=${boundary}`,
      "content-length": String(head.length + sizeBytes + tail.length),
    };
    const limits = { deadlineMs: timeoutMs, maxBytes: MAX_ANSWER_BYTES };
    const request = client.open({ method: "POST", path: PUT_PATH, headers }, limits);
    request.write(head);
    return request;
  }

  function openPut(sizeBytes: number | null): BlockPut {
    let begun: OpenRequest | null = null;
    let sent = 0;

    async function finish(bytes: Buffer): Promise<Answer> {
      begun ??= open(bytes.length);
      try {
        return await begun.finish([bytes.subarray(sent), tail]);
      } catch (cause) {
        if (!(cause instanceof StaleConnection)) throw cause;
        begun = null;
        sent = 0;
        return finish(bytes);
      }
    }
    return {
      relay(bytes) {
        if (sizeBytes === null || bytes.length - sent <= RELAY_BYTES) return;
        begun ??= open(sizeBytes);
        const end = bytes.length - 1;
        begun.write(bytes.subarray(sent, end));
        sent = end;
      },
      async store(bytes) {
        try {
          return readAnswer(await finish(bytes));
        } catch (cause) {
          return { kind: "failed", why: messageOf(cause) };
        }
      },
      abandon: () => begun?.abandon(),
    };
  }

  return { openPut, close: () => client.close() };
}

function readAnswer({ status, text }: Answer): PutBlock {
  const answer = (parseJson(text) ?? {}) as Readonly<Record<string, unknown>>;
  if (status !== 200) {
    const message = typeof answer["Message"] === "string" ? answer["Message"] : text.trim();
    return { kind: "failed", why: `block/put answers ${status}: ${message.slice(0, 300)}` };
  }
  if (typeof answer["Key"] === "string") return { kind: "stored", key: answer["Key"] };
  return { kind: "failed", why: "block/put answers without a key" };
}
