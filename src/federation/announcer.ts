import { createPrivateKey, createPublicKey, type KeyObject, sign } from "node:crypto";
import { messageOf, OperatorError } from "../errors.ts";
import { codeOf } from "../machine/file-errors.ts";
import { peerIdOf } from "./announcement-key.ts";

/** A node's own libp2p identity: what its announcements are signed with. */
export interface NodeIdentity {
  readonly peerId: string;
  /** 128 lower-case hex digits over the text's UTF-8. */
  sign(text: string): string;
}

/** Speaks to the directory of nodes of one master. */
export interface NodesClient {
  /** Where it is: for messages. */
  readonly url: string;
  send(method: "POST" | "DELETE", path: string, body: unknown): Promise<NodesAnswer>;
}

/** What a master answers (a body that is no JSON is null), or why nothing of it can be had. */
export type NodesAnswer = { readonly status: number; readonly body: unknown } | { readonly silence: string };

/** A protobuf PrivateKey of type Ed25519 with 64 bytes of data, seed and public key (libp2p specs, peer-ids). */
const PRIVATE_PREFIX = Buffer.from("08011240", "hex");
const SEED_BYTES = 32;
/** What comes before a seed in PKCS8 (RFC 8410, section 7). */
const PKCS8_PREFIX = Buffer.from("302e020100300506032b657004220420", "hex");
const TIMEOUT_MS = 20_000;
const MAX_ANSWER_BYTES = 65_536;

/**
 * Reads the identity of an ipfs-cluster peer (identity.json: `id`, `private_key`) or of kubo (config:
 * `Identity.PeerID`, `Identity.PrivKey`). Throws an OperatorError (`settings`) where it is neither, no
 * ed25519 key, or a key that does not fit its id; nothing of the key is quoted.
 */
export function parseNodeIdentity(text: string, path: string): NodeIdentity {
  const { id, encoded } = readIdentity(text, path);
  const bytes = Buffer.from(encoded, "base64");
  const data = bytes.subarray(PRIVATE_PREFIX.length);
  if (!bytes.subarray(0, PRIVATE_PREFIX.length).equals(PRIVATE_PREFIX) || data.length !== 2 * SEED_BYTES)
    throw noIdentity(path, "its key is not an ed25519 key");
  const key = createPrivateKey({
    key: Buffer.concat([PKCS8_PREFIX, data.subarray(0, SEED_BYTES)]),
    format: "der",
    type: "pkcs8",
  });
  if (peerIdOf(rawPublicKey(key)) !== id) throw noIdentity(path, "its key does not belong to its peer id");
  return { peerId: id, sign: (signed) => sign(null, Buffer.from(signed, "utf8"), key).toString("hex") };
}

/**
 * Opens the way to a master's API at its STORAGE_API_URL; follows no redirect. Each exchange has 20 seconds.
 */
export function openNodesClient(storageApiUrl: string, timeoutMs: number = TIMEOUT_MS): NodesClient {
  const url = storageApiUrl.replace(/\/+$/, "");
  return {
    url,
    async send(method, path, body) {
      try {
        const answer = await fetch(`${url}${path}`, {
          method: method.toUpperCase(),
          headers: { "content-type": "application/json", accept: "application/json" },
          body: JSON.stringify(body),
          redirect: "manual",
          signal: AbortSignal.timeout(timeoutMs),
        });
        return { status: answer.status, body: parse(await readAtMost(answer, MAX_ANSWER_BYTES)) };
      } catch (thrown) {
        return { silence: whySilent(thrown, timeoutMs) };
      }
    },
  };
}

function readIdentity(text: string, path: string): { readonly id: string; readonly encoded: string } {
  const value = parse(text) as Readonly<Record<string, unknown>> | null;
  const nested = value?.["Identity"] as Readonly<Record<string, unknown>> | null | undefined;
  const id = value?.["id"] ?? nested?.["PeerID"];
  const encoded = value?.["private_key"] ?? nested?.["PrivKey"];
  if (typeof id === "string" && typeof encoded === "string") return { id, encoded };
  throw noIdentity(path, "it holds no peer id with its private key");
}

function rawPublicKey(key: KeyObject): Uint8Array {
  return createPublicKey(key).export({ type: "spki", format: "der" }).subarray(-SEED_BYTES);
}

async function readAtMost(answer: Response, maxBytes: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of (answer.body ?? []) as AsyncIterable<Uint8Array>) {
    size += chunk.length;
    if (size > maxBytes) return "";
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}

/** fetch tells of a connection that was lost, refused or not trusted by a TypeError with the reason as its cause. */
function whySilent(thrown: unknown, timeoutMs: number): string {
  if (!(thrown instanceof Error)) throw thrown;
  if (thrown.name === "TimeoutError") return `no answer within ${timeoutMs / 1000} seconds`;
  const { cause } = thrown;
  if (!(thrown instanceof TypeError) || cause === undefined) throw thrown;
  return messageOf(cause) || codeOf(cause) || "the connection broke off";
}

function noIdentity(path: string, why: string): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: `${path} is no identity that a node can announce itself with: ${why}.`,
    remedy: "ipfs-cluster makes one in its data directory (identity.json) at its first start.",
  });
}
