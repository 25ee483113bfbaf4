import { base58btc } from "multiformats/bases/base58";
import { parseTcpMultiaddr } from "../settings/address.ts";

/** What a node announces to its pool: its name and its addresses. */
export interface Announcement {
  readonly name: string;
  /** The peer id `12D3KooW...` of the ed25519 key that signs and that owns the name. */
  readonly peerId: string;
  /** Multiaddrs (tcp or quic), each ending with `/p2p/` and that peer id. */
  readonly addresses: readonly string[];
  /** When it was signed, by the node's clock: `2026-11-21T20:00:00.000Z`. */
  readonly time: string;
  readonly pool: string;
}

/** Releases a name. */
export interface Release {
  readonly name: string;
  readonly peerId: string;
  readonly time: string;
  readonly pool: string;
  /**
   * The id of the reservation to release: the name stays if another run reserved it or has announced it since.
   * Null releases the name for any reservation of this key.
   */
  readonly reservation: string | null;
}

/** Which cluster peers a node trusts: it takes over the pinset from these. A message of its own, since older masters refuse
 * an announcement with a key that they do not know. */
export interface TrustStatement {
  /** A name that the key owns. */
  readonly name: string;
  readonly peerId: string;
  readonly pool: string;
  readonly time: string;
  /** Peer ids, sorted. */
  readonly trusts: readonly string[];
}

/** A message and its signature: 64 bytes of ed25519 as 128 lower-case hex digits. */
export interface Signed<Message> {
  readonly message: Message;
  readonly signature: string;
}

/** The most addresses in an announcement. The least is 1. */
export const MAX_ADDRESSES = 16;
const MAX_ADDRESS_CHARACTERS = 256;
/** The most peers in a statement of trust. */
export const MAX_TRUSTED = 64;

/**
 * The bytes before the ed25519 key in a peer id: an identity multihash (0x00) of 36 bytes, which are a
 * protobuf PublicKey of type Ed25519 (08 01) with 32 bytes of data (12 20). libp2p specs, peer-ids.
 */
const PEER_ID_PREFIX = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20] as const;
const KEY_BYTES = 32;
/** Every peer id of an ed25519 key has this length. */
const PEER_ID_CHARACTERS = 52;

/**
 * The text to sign, as UTF-8. The first line is one that no other protocol signs (libp2p and IPNS sign with the
 * same key). Then follows one JSON object without spaces, with its keys in alphabetical order:
 *
 *     fula-node announcement 1
 *     {"addresses":[...],"name":"...","peerId":"...","pool":"...","time":"..."}
 */
export function announcementText(announcement: Announcement): string {
  const { addresses, name, peerId, pool, time } = announcement;
  return `fula-node announcement 1\n${JSON.stringify({ addresses, name, peerId, pool, time })}`;
}

/** Like announcementText, for a release: `fula-node release 1` and {name, peerId, pool, reservation, time}. */
export function releaseText({ name, peerId, pool, reservation, time }: Release): string {
  return `fula-node release 1\n${JSON.stringify({ name, peerId, pool, reservation, time })}`;
}

/** Like announcementText, for a statement of trust: `fula-node trust 1` and {name, peerId, pool, time, trusts}. */
export function trustText({ name, peerId, pool, time, trusts }: TrustStatement): string {
  return `fula-node trust 1\n${JSON.stringify({ name, peerId, pool, time, trusts })}`;
}

/** The ed25519 public key that a peer id `12D3KooW...` carries; null for any other text, including the Qm ids of RSA keys. */
export function publicKeyOf(peerId: string): Uint8Array | null {
  if (peerId.length !== PEER_ID_CHARACTERS) return null;
  let bytes: Uint8Array;
  try {
    bytes = base58btc.baseDecode(peerId);
  } catch {
    return null;
  }
  // Encode again and compare: the decoder accepts some characters outside its alphabet.
  const isPeerId =
    bytes.length === PEER_ID_PREFIX.length + KEY_BYTES &&
    PEER_ID_PREFIX.every((byte, at) => bytes[at] === byte) &&
    base58btc.baseEncode(bytes) === peerId;
  return isPeerId ? bytes.slice(PEER_ID_PREFIX.length) : null;
}

/** The peer id of an ed25519 public key of 32 bytes. */
export function peerIdOf(publicKey: Uint8Array): string {
  return base58btc.baseEncode(Uint8Array.of(...PEER_ID_PREFIX, ...publicKey));
}

/** Checks an address for an announcement of that peer. Returns the problem as a sentence, or null if the address is valid. */
export function validateNodeAddress(address: string, peerId: string): string | null {
  const quoted = JSON.stringify(address.slice(0, 120));
  if (address.length > MAX_ADDRESS_CHARACTERS)
    return `${quoted}... has more than ${MAX_ADDRESS_CHARACTERS} characters.`;
  const parts = parseTcpMultiaddr(address.replace(/\/udp\/([0-9]+)\/quic(?:-v1)?(?=\/|$)/, "/tcp/$1"));
  if (parts === null || parts.scheme !== null) return `${quoted} is not a multiaddr with a tcp or quic port.`;
  if (parts.peer === null) return `${quoted} must end with /p2p/ and the peer id.`;
  return parts.peer === peerId ? null : `${quoted} belongs to a peer other than the one that announces it.`;
}

/** The addresses of a peer that its announcement can contain, sorted. */
export function announceableAddresses(addresses: readonly string[], peerId: string): readonly string[] {
  const usable = addresses.filter((address) => validateNodeAddress(address, peerId) === null);
  return usable.toSorted().slice(0, MAX_ADDRESSES);
}
