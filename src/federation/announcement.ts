import { parseTcpMultiaddr } from "../settings/address.ts";
import { RULES } from "../settings/rules.ts";
import { publicKeyOf } from "./announcement-key.ts";
import { whyNoNodeName } from "./node-name.ts";

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

/** What was read, or everything that is wrong with it, a sentence each. */
export type Reading<Message> = Signed<Message> | { readonly problems: readonly string[] };

/** An announcement's body is never larger. */
export const MAX_ANNOUNCEMENT_BYTES = 16_384;

const MAX_ADDRESSES = 16;
const MAX_ADDRESS_CHARACTERS = 256;

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

/** Reads the body of `POST /api/v1/nodes`. A key that is not signed is refused, not ignored. */
export function readAnnouncement(body: unknown): Reading<Announcement> {
  const { problems, text, list, signature } = open(body, ["name", "peerId", "addresses", "time", "pool"]);
  const message: Announcement = {
    name: text("name", whyNoNodeName),
    peerId: text("peerId", whyNoIdentity),
    addresses: list("addresses"),
    time: text("time", whyNoTime),
    pool: text("pool", whyNoPool),
  };
  if (problems.length === 0) problems.push(...faultsOf(message));
  return problems.length > 0 ? { problems } : { message, signature };
}

/** Reads the body of `DELETE /api/v1/nodes/NAME`. */
export function readRelease(body: unknown): Reading<Release> {
  const { problems, text, fields, signature } = open(body, ["name", "peerId", "time", "pool", "reservation"]);
  const message: Release = {
    name: text("name", whyNoNodeName),
    peerId: text("peerId", whyNoIdentity),
    time: text("time", whyNoTime),
    pool: text("pool", whyNoPool),
    reservation: fields["reservation"] === null ? null : text("reservation", whyNoReservation),
  };
  return problems.length > 0 ? { problems } : { message, signature };
}

/** Why an address can't stand in an announcement of that peer, in a sentence; null where it can. */
export function whyNoNodeAddress(address: string, peerId: string): string | null {
  const shown = JSON.stringify(address.slice(0, 120));
  if (address.length > MAX_ADDRESS_CHARACTERS)
    return `${shown}... has more than ${MAX_ADDRESS_CHARACTERS} characters.`;
  const parts = parseTcpMultiaddr(address.replace(/\/udp\/([0-9]+)\/quic(?:-v1)?(?=\/|$)/, "/tcp/$1"));
  if (parts === null || parts.scheme !== null) return `${shown} is no multiaddr with a tcp or quic port.`;
  if (parts.peer === null) return `${shown} lacks /p2p/ and the peer id.`;
  return parts.peer === peerId ? null : `${shown} leads to another peer than the one that announces it.`;
}

function faultsOf({ addresses, peerId }: Announcement): readonly string[] {
  if (addresses.length === 0 || addresses.length > MAX_ADDRESSES)
    return [`addresses must hold 1 to ${MAX_ADDRESSES} multiaddrs.`];
  return addresses.flatMap((address) => whyNoNodeAddress(address, peerId) ?? []);
}

function whyNoIdentity(value: string): string | null {
  return publicKeyOf(value) === null
    ? "peerId must be an ed25519 peer id: 12D3KooW and 44 more characters."
    : null;
}

function whyNoTime(value: string): string | null {
  const at = /^2\d{3}-/.test(value) ? new Date(value) : new Date(Number.NaN);
  const isExact = !Number.isNaN(at.getTime()) && at.toISOString() === value;
  return isExact ? null : "time must be UTC with milliseconds, such as 2026-11-21T20:00:00.000Z.";
}

function whyNoPool(value: string): string | null {
  return RULES.name.holds(value) ? null : `pool must be ${RULES.name.say}.`;
}

function whyNoReservation(value: string): string | null {
  const isId = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value);
  return isId ? null : "reservation must be the id that the reservation was answered with, or null.";
}

/** Takes a body apart; what is wrong gathers in `problems`, and reads as blank. */
function open(body: unknown, keys: readonly string[]) {
  const problems: string[] = [];
  const isObject = typeof body === "object" && body !== null && !Array.isArray(body);
  const fields = isObject ? (body as Readonly<Record<string, unknown>>) : {};
  const known = [...keys, "signature"];
  const text = (key: string, why: (value: string) => string | null): string => {
    const value = fields[key];
    const problem = typeof value === "string" ? why(value) : `${key} must be a text.`;
    if (problem !== null && isObject) problems.push(problem);
    return typeof value === "string" ? value : "";
  };
  const list = (key: string): readonly string[] => {
    const value = fields[key];
    if (Array.isArray(value) && value.every((each) => typeof each === "string")) return value;
    if (isObject) problems.push(`${key} must be a list of texts.`);
    return [];
  };
  if (!isObject) problems.push("The body must be one JSON object.");
  for (const key of Object.keys(fields).filter((given) => !known.includes(given)))
    problems.push(`${JSON.stringify(key.slice(0, 40))} is no part of it.`);
  const signature = text("signature", (value) =>
    /^[0-9a-f]{128}$/.test(value) ? null : "signature must be 128 lower-case hex digits.",
  );
  return { problems, fields, text, list, signature };
}
