import { randomBytes } from "node:crypto";
import { messageOf } from "../errors.ts";
import { openHttpClient } from "./http-client.ts";

/** What became of a block: kubo's own name for it, or why it has none. */
export type PutBlock =
  | { readonly kind: "stored"; readonly key: string }
  | { readonly kind: "failed"; readonly why: string };

/** Puts blocks into a kubo. */
export interface KuboBlocks {
  /** Stores the bytes, one part after the other, as a raw block named by its BLAKE3 digest; pins nothing. */
  putBlock(parts: readonly Uint8Array[]): Promise<PutBlock>;
  close(): void;
}

/** Names the block as fula-ingest does (functionland/fula-ota, docker/fula-ingest; kubo's RPC reference, block/put). */
const PUT_PATH = "/api/v0/block/put?cid-codec=raw&mhtype=blake3&mhlen=32&pin=false";

/** Opens kubo's RPC API for blocks; `timeoutMs` bounds one put. Nothing is sent yet. */
export function openKubo(
  url: string,
  options: { readonly connections: number; readonly timeoutMs: number },
): KuboBlocks {
  const client = openHttpClient(url, options);
  const boundary = `fula-node-${randomBytes(16).toString("hex")}`;
  const head = Buffer.from(
    `--${boundary}\r\ncontent-disposition: form-data; name="data"; filename="blob"\r\n` +
      "content-type: application/octet-stream\r\n\r\n",
  );
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`);

  return {
    async putBlock(parts) {
      const body = [head, ...parts, tail];
      const headers = {
        "content-type": `multipart/form-data; boundary=${boundary}`,
        "content-length": body.reduce((sum, { length }) => sum + length, 0),
      };
      try {
        return readAnswer(await client.send({ method: "POST", path: PUT_PATH, headers, body }));
      } catch (cause) {
        return { kind: "failed", why: messageOf(cause) };
      }
    },
    close: () => client.close(),
  };
}

function readAnswer({ status, text }: { readonly status: number; readonly text: string }): PutBlock {
  const answer = parse(text);
  if (status !== 200) {
    const message = typeof answer["Message"] === "string" ? answer["Message"] : text.trim();
    return { kind: "failed", why: `block/put answers ${status}: ${message.slice(0, 300)}` };
  }
  if (typeof answer["Key"] === "string") return { kind: "stored", key: answer["Key"] };
  return { kind: "failed", why: "block/put answers without a key" };
}

function parse(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
