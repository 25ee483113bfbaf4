import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { type NodeIdentity, parseNodeIdentity } from "../../src/federation/node-identity.ts";
import {
  type Announcement,
  announcementText,
  peerIdOf,
  type Release,
  releaseText,
  trustText,
  type TrustStatement,
} from "../../src/federation/announcement.ts";

/** The text of an identity.json as ipfs-cluster writes it, with a new ed25519 key. */
export function makeIdentityFile(): { readonly peerId: string; readonly text: string } {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const seed = lastBytes(privateKey, "pkcs8");
  const raw = lastBytes(publicKey, "spki");
  const encoded = Buffer.concat([Buffer.from("08011240", "hex"), seed, raw]).toString("base64");
  const peerId = peerIdOf(raw);
  return { peerId, text: JSON.stringify({ id: peerId, private_key: encoded }) };
}

/** The key of a node. */
export function makeIdentity(): NodeIdentity {
  const identity = parseNodeIdentity(makeIdentityFile().text, "identity.json");
  if (identity === null) throw new Error("no identity");
  return identity;
}

/** An announcement with the current time. The given parts replace its own. */
export function announcementOf(
  { peerId }: NodeIdentity,
  parts: Partial<Announcement> & { readonly name: string },
): Announcement {
  const addresses = [`/ip4/192.0.2.7/tcp/9096/p2p/${peerId}`];
  return { peerId, addresses, time: new Date().toISOString(), pool: "pool-a", ...parts };
}

/** The body of a POST. */
export function signAnnouncement(identity: NodeIdentity, announcement: Announcement) {
  return { ...announcement, signature: identity.sign(announcementText(announcement)) };
}

/** The body of a statement of trust. */
export function signTrust(identity: NodeIdentity, statement: TrustStatement) {
  return { ...statement, signature: identity.sign(trustText(statement)) };
}

/** The body of a DELETE. */
export function signRelease(identity: NodeIdentity, release: Release) {
  return { ...release, signature: identity.sign(releaseText(release)) };
}

function lastBytes(key: KeyObject, type: "pkcs8" | "spki"): Buffer {
  return (key.export({ type: type as "spki", format: "der" }) as Buffer).subarray(-32);
}
