import { randomBytes } from "node:crypto";
import { messageOf } from "../errors.ts";
import {
  type Answer,
  HttpClient,
  type OpenRequest,
  parseJson,
  StaleConnection,
} from "../machine/http-client.ts";

/** The result of storing a block: the key that kubo gave it, or why it was not stored. */
export type PutBlock =
  | { readonly kind: "stored"; readonly key: string }
  | { readonly kind: "failed"; readonly why: string };

/** The upload of one block to kubo. */
export interface BlockPut {
  /** Passes on the bytes received so far, from the first byte of the block. It keeps the last byte back, so that kubo never has a complete block before `store`. */
  relay(bytes: Buffer): void;
  /** Sends the rest. Kubo stores it as a raw block with a BLAKE3 digest as its name, and pins nothing. */
  store(bytes: Buffer): Promise<PutBlock>;
  /** Aborts the upload. Kubo refuses a body that ends too early, so nothing is stored. After `store` it does nothing. */
  abandon(): void;
}

/** Stores blocks in a kubo. */
export interface KuboBlocks {
  /** Begins a block. If its size is not known, nothing is sent before `store`. */
  openPut(sizeBytes: number | null): BlockPut;
  close(): void;
}

/** Smaller parts are not worth a packet of their own. */
const RELAY_BYTES = 32_768;
/** Kubo's answer to a block is never longer. */
const MAX_ANSWER_BYTES = 65_536;
/** With these options the block gets the same name as with fula-ingest (functionland/fula-ota, docker/fula-ingest; kubo's RPC reference, block/put). */
const PUT_PATH = "/api/v0/block/put?cid-codec=raw&mhtype=blake3&mhlen=32&pin=false";

/** Opens kubo's RPC API for blocks. `timeoutMs` limits the time from the end of a block to the answer. Nothing is sent yet. */
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
    let request: OpenRequest | null = null;
    let sent = 0;

    async function finish(bytes: Buffer): Promise<Answer> {
      request ??= open(bytes.length);
      try {
        return await request.finish([bytes.subarray(sent), tail]);
      } catch (cause) {
        if (!(cause instanceof StaleConnection)) throw cause;
        request = null;
        sent = 0;
        return finish(bytes);
      }
    }
    return {
      relay(bytes) {
        if (sizeBytes === null || bytes.length - sent <= RELAY_BYTES) return;
        request ??= open(sizeBytes);
        const end = bytes.length - 1;
        request.write(bytes.subarray(sent, end));
        sent = end;
      },
      async store(bytes) {
        try {
          return readAnswer(await finish(bytes));
        } catch (cause) {
          return { kind: "failed", why: messageOf(cause) };
        }
      },
      abandon: () => request?.abandon(),
    };
  }

  return { openPut, close: () => client.close() };
}

function readAnswer({ status, text }: Answer): PutBlock {
  const answer = (parseJson(text) ?? {}) as Readonly<Record<string, unknown>>;
  if (status !== 200) {
    const message = typeof answer["Message"] === "string" ? answer["Message"] : text.trim();
    return { kind: "failed", why: `block/put answered ${status}: ${message.slice(0, 300)}` };
  }
  if (typeof answer["Key"] === "string") return { kind: "stored", key: answer["Key"] };
  return { kind: "failed", why: "block/put answered without a key" };
}
