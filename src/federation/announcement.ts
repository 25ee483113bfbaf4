import { base58btc } from "multiformats/bases/base58";
import { parseTcpMultiaddr } from "../settings/address.ts";

/** What a node says of itself to its pool: under which name it is found, and where. */
export interface Announcement {
  readonly name: string;
  /** The ed25519 identity that signs, as its peer id `12D3KooW...`: whose name it is. */
  readonly peerId: string;
  /** Multiaddrs (tcp or quic), each with `/p2p/` and that peer id at its end. */
  readonly addresses: readonly string[];
  /** When it was signed, by the node's clock: `2026-11-21T20:00:00.000Z`. */
  readonly time: string;
  readonly pool: string;
}

/** What gives a name back. */
export interface Release {
  readonly name: string;
  readonly peerId: string;
  readonly time: string;
  readonly pool: string;
  /**
   * The reservation that the attempt got which now takes it back: the name stays where another attempt
   * has it, or has announced it since. Null gives the name back whoever of this key announced it.
   */
  readonly reservation: string | null;
}

/** A message with the signature that stands for it: 64 bytes of ed25519 as 128 lower-case hex digits. */
export interface Signed<Message> {
  readonly message: Message;
  readonly signature: string;
}

/** An announcement holds 1 to so many addresses. */
export const MAX_ADDRESSES = 16;
const MAX_ADDRESS_CHARACTERS = 256;

/**
 * What comes before an ed25519 key in a peer id: an identity multihash (0x00) of 36 bytes, which are a
 * protobuf PublicKey of type Ed25519 (08 01) with 32 bytes of data (12 20). libp2p specs, peer-ids.
 */
const PEER_ID_PREFIX = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20] as const;
const KEY_BYTES = 32;
/** As many characters has every peer id of an ed25519 key. */
const PEER_ID_CHARACTERS = 52;

/**
 * The text that is signed, as UTF-8: a line that no other protocol signs (libp2p and IPNS sign with the
 * same key), then one JSON object without spaces, its keys in alphabetical order:
 *
 *     fula-node announcement 1
 *     {"addresses":[...],"name":"...","peerId":"...","pool":"...","time":"..."}
 */
export function announcementText(announcement: Announcement): string {
  const { addresses, name, peerId, pool, time } = announcement;
  return `fula-node announcement 1\n${JSON.stringify({ addresses, name, peerId, pool, time })}`;
}

/** As announcementText, for a release: `fula-node release 1` and {name, peerId, pool, reservation, time}. */
export function releaseText({ name, peerId, pool, reservation, time }: Release): string {
  return `fula-node release 1\n${JSON.stringify({ name, peerId, pool, reservation, time })}`;
}

/** The ed25519 public key that a peer id `12D3KooW...` carries; null for any other text, also for RSA's Qm ids. */
export function publicKeyOf(peerId: string): Uint8Array | null {
  if (peerId.length !== PEER_ID_CHARACTERS) return null;
  let bytes: Uint8Array;
  try {
    bytes = base58btc.baseDecode(peerId);
  } catch {
    return null;
  }
  // Written again, since the decoder takes some characters outside its alphabet for others.
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

/** Why an address can't stand in an announcement of that peer, in a sentence; null where it can. */
export function validateNodeAddress(address: string, peerId: string): string | null {
  const shown = JSON.stringify(address.slice(0, 120));
  if (address.length > MAX_ADDRESS_CHARACTERS)
    return `${shown}... has more than ${MAX_ADDRESS_CHARACTERS} characters.`;
  const parts = parseTcpMultiaddr(address.replace(/\/udp\/([0-9]+)\/quic(?:-v1)?(?=\/|$)/, "/tcp/$1"));
  if (parts === null || parts.scheme !== null) return `${shown} is no multiaddr with a tcp or quic port.`;
  if (parts.peer === null) return `${shown} lacks /p2p/ and the peer id.`;
  return parts.peer === peerId ? null : `${shown} leads to another peer than the one that announces it.`;
}

/** Of a peer's addresses those that an announcement of it can hold, in order. */
export function announceable(addresses: readonly string[], peerId: string): readonly string[] {
  const usable = addresses.filter((address) => validateNodeAddress(address, peerId) === null);
  return usable.toSorted().slice(0, MAX_ADDRESSES);
}
