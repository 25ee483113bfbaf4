import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { createSigner, createVerifier } from "../machine/signing.ts";
import { STORAGE_NAMES } from "../settings/layout.ts";
import { peerIdOf, publicKeyOf } from "./announcement.ts";

/** A node's own libp2p identity, which signs its announcements. No property exposes the private key. */
export interface NodeIdentity {
  readonly peerId: string;
  /**
   * Signs the UTF-8 text: 128 lower-case hex digits. Throws an OperatorError (`settings`) if the private key is not an
   * ed25519 key or does not belong to the peer id. The error contains no part of the key.
   */
  sign(text: string): string;
}

/** A protobuf PrivateKey of type Ed25519 with 64 bytes of data, seed and public key (libp2p specs, peer-ids). */
const PRIVATE_PREFIX = Buffer.from("08011240", "hex");
const SEED_BYTES = 32;

/** The format of ipfs-cluster or of kubo. */
interface IdentityFile {
  readonly id?: unknown;
  readonly private_key?: unknown;
  readonly Identity?: { readonly PeerID?: unknown; readonly PrivKey?: unknown } | null;
}

/** Where the image of ipfs-cluster has its data. */
const CLUSTER_DATA = "/data/ipfs-cluster";

/** The identity that a storage node's ipfs-cluster created on its volume. Null before its first start. */
export async function readNodeIdentity({
  docker,
  files,
}: Pick<HostReader, "docker" | "files">): Promise<NodeIdentity | null> {
  const [volume, container] = await Promise.all([
    docker.volume(STORAGE_NAMES.clusterVolume),
    docker.container(STORAGE_NAMES.cluster),
  ]);
  // An adopted ipfs-cluster may have its data elsewhere.
  const place = container?.mounts.find(({ destination }) => destination === CLUSTER_DATA)?.source;
  const directory = place ?? volume?.mountpoint;
  const text = directory === undefined ? null : await files.readText(`${directory}/identity.json`);
  return text === null ? null : parseNodeIdentity(text, "identity.json of ipfs-cluster");
}

/**
 * Reads the identity of an ipfs-cluster peer (identity.json: `id`, `private_key`) or of kubo (config:
 * `Identity.PeerID`, `Identity.PrivKey`); null for a text without a peer id. The key is parsed at the first signature,
 * since most callers only need the peer id. `path` is for messages.
 */
export function parseNodeIdentity(text: string, path: string): NodeIdentity | null {
  const { peerId, encoded } = fieldsOf(text);
  if (typeof peerId !== "string" || peerId === "") return null;
  let sign: ReturnType<typeof openKey> | null = null;
  return {
    peerId,
    sign(signed) {
      sign ??= openKey(encoded, peerId, path);
      return Buffer.from(sign(Buffer.from(signed, "utf8"))).toString("hex");
    },
  };
}

/** True if the key in a peer id signed the text (strict; see createVerifier). It proves that the sender has the key, and nothing else. */
export function isSignedBy(peerId: string, text: string, signatureHex: string): boolean {
  const key = publicKeyOf(peerId);
  return key !== null && createVerifier(key)(Buffer.from(text, "utf8"), Buffer.from(signatureHex, "hex"));
}

/** Both undefined if the text is not JSON: the file may not be fully written yet. */
function fieldsOf(text: string): { readonly peerId?: unknown; readonly encoded?: unknown } {
  let value: IdentityFile | null;
  try {
    value = JSON.parse(text) as IdentityFile | null;
  } catch {
    return {};
  }
  return {
    peerId: value?.id ?? value?.Identity?.PeerID,
    encoded: value?.private_key ?? value?.Identity?.PrivKey,
  };
}

function openKey(encoded: unknown, peerId: string, path: string): (bytes: Uint8Array) => Uint8Array {
  if (typeof encoded !== "string") throw noIdentity(path, "it contains no private key");
  const bytes = Buffer.from(encoded, "base64");
  const data = bytes.subarray(PRIVATE_PREFIX.length);
  if (!bytes.subarray(0, PRIVATE_PREFIX.length).equals(PRIVATE_PREFIX) || data.length !== 2 * SEED_BYTES)
    throw noIdentity(path, "its key is not an ed25519 key");
  const { publicKey, sign } = createSigner(new Uint8Array(data.subarray(0, SEED_BYTES)));
  if (peerIdOf(publicKey) !== peerId) throw noIdentity(path, "its key does not belong to its peer id");
  return sign;
}

function noIdentity(path: string, why: string): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: `${path} can't be used as this node's identity: ${why}.`,
    remedy: "ipfs-cluster creates identity.json in its data directory at its first start. Check that file.",
  });
}
