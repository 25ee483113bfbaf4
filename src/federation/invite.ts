import { isInSubnets, isPeerId, parseTcpMultiaddr } from "../settings/address.ts";
import { type Rule, RULES } from "../settings/rules.ts";

/** What a master hands to a new storage node, signed with the key that signs its snapshots. */
export interface Invite {
  readonly clusterName: string;
  /** 64 hex digits. Upstream derives it from the name, so it is no secret to rely on. */
  readonly clusterSecret: string;
  /** Cluster peer ids of the masters: the only ones that the node will obey. */
  readonly trustedPeers: readonly string[];
  /** TCP multiaddrs with their peers. */
  readonly bootstrap: readonly string[];
  readonly storageApiUrl: string;
  /** The name that the node shall take, where the master has one in mind. */
  readonly nodeName: string | null;
  readonly issuedAt: Date;
  readonly expiresAt: Date;
  /** The master's public key, SPKI PEM: it checks the signature, and its id is the fingerprint. */
  readonly publicPem: string;
}

/** A token taken apart: what was signed, and the signature. Nothing in it is to be believed yet. */
export interface InviteToken {
  readonly invite: Invite;
  /** The very bytes that were signed. */
  readonly payload: string;
  /** Raw ed25519, base64url. */
  readonly signature: string;
}

const PREFIX = "fula-invite";
const VERSION = 1;
/** Far above any invite: 50 masters with five addresses each take 20 kB. */
const MAX_TOKEN_CHARACTERS = 100_000;
const BASE64URL = /^[A-Za-z0-9_-]+$/;

/** The payload's bytes as text, in a fixed order of keys: what is signed. */
export function invitePayload(invite: Invite): string {
  return JSON.stringify({
    version: VERSION,
    cluster_name: invite.clusterName,
    cluster_secret: invite.clusterSecret,
    trusted_peers: invite.trustedPeers,
    bootstrap: invite.bootstrap,
    storage_api_url: invite.storageApiUrl,
    node_name: invite.nodeName,
    issued_at: invite.issuedAt.toISOString(),
    expires_at: invite.expiresAt.toISOString(),
    public_key: invite.publicPem,
  });
}

/** One line to hand over: `fula-invite.1.PAYLOAD.SIGNATURE`, both base64url. */
export function formatToken(payloadBase64url: string, signatureBase64url: string): string {
  return `${PREFIX}.${VERSION}.${payloadBase64url}.${signatureBase64url}`;
}

/** Takes a token's outside apart; a newer version is told from garbage, since its remedy is another. */
export function splitToken(
  text: string,
):
  | { readonly payload: string; readonly signature: string }
  | { readonly fault: "garbage" | "newer"; readonly what: string } {
  const token = text.trim();
  if (token === "") return { fault: "garbage", what: "it is empty" };
  if (token.length > MAX_TOKEN_CHARACTERS)
    return { fault: "garbage", what: `it has ${token.length} characters; no invite is that long` };
  const [prefix, version, payload, signature, ...rest] = token.split(".");
  if (prefix !== PREFIX) return { fault: "garbage", what: `it does not begin with ${PREFIX}.` };
  if (version !== String(VERSION)) {
    const newer = /^[0-9]{1,4}$/.test(version ?? "") && Number(version) > VERSION;
    return {
      fault: newer ? "newer" : "garbage",
      what: newer
        ? `it is of version ${version ?? ""}; this fula-node reads version ${VERSION}`
        : "it names no version",
    };
  }
  if (
    payload === undefined ||
    signature === undefined ||
    rest.length > 0 ||
    !BASE64URL.test(payload) ||
    !BASE64URL.test(signature)
  ) {
    return {
      fault: "garbage",
      what: "it was cut short or altered: it must have four parts, separated by dots",
    };
  }
  return { payload, signature };
}

/** Reads the payload's text; gives what is wrong with it in a sentence. */
export function readPayload(payload: string): Invite | { readonly what: string } {
  let parsed: unknown;
  try {
    parsed = JSON.parse(payload);
  } catch {
    return { what: "its payload is no JSON" };
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))
    return { what: "its payload is no JSON object" };
  const fields = parsed as Readonly<Record<string, unknown>>;
  const text = (key: string): string => (typeof fields[key] === "string" ? fields[key] : "");
  const texts = (key: string): readonly string[] =>
    Array.isArray(fields[key]) ? fields[key].map((each) => (typeof each === "string" ? each : "")) : [];
  const invite: Invite = {
    clusterName: text("cluster_name"),
    clusterSecret: text("cluster_secret"),
    trustedPeers: texts("trusted_peers"),
    bootstrap: texts("bootstrap"),
    storageApiUrl: text("storage_api_url"),
    nodeName: fields["node_name"] === null ? null : text("node_name"),
    issuedAt: new Date(text("issued_at")),
    expiresAt: new Date(text("expires_at")),
    publicPem: text("public_key"),
  };
  const what = faultOf(invite);
  return what === null ? invite : { what };
}

function faultOf(invite: Invite): string | null {
  const field = (name: string, rule: Rule, value: string) =>
    rule.holds(value) ? null : `its ${name} must be ${rule.say}`;
  if (invite.trustedPeers.length === 0 || !invite.trustedPeers.every(isPeerId))
    return "its trusted peers must be peer ids, one at least";
  if (
    invite.bootstrap.length === 0 ||
    !invite.bootstrap.every((address) => RULES.peerMultiaddr.holds(address))
  )
    return `its bootstrap addresses must each be ${RULES.peerMultiaddr.say}`;
  if (Number.isNaN(invite.issuedAt.getTime()) || Number.isNaN(invite.expiresAt.getTime()))
    return "its times can't be read";
  return (
    field("cluster name", RULES.name, invite.clusterName) ??
    field("cluster secret", RULES.hex64, invite.clusterSecret) ??
    field("storage API URL", RULES.url, invite.storageApiUrl) ??
    (invite.publicPem.startsWith("-----BEGIN PUBLIC KEY-----") ? null : "it has no public key")
  );
}

/** How long an invite is good for, from `24h`, `90m`, `7d`; null for anything else, and for more than 90 days. */
export function parseDuration(text: string): number | null {
  const match = /^([1-9][0-9]{0,4})([mhd])$/.exec(text);
  if (match === null) return null;
  const [, amount = "", unit = "m"] = match;
  const ms = Number(amount) * { m: 60_000, h: 3_600_000, d: 86_400_000 }[unit as "m" | "h" | "d"];
  return ms <= 90 * 86_400_000 ? ms : null;
}

/** This machine alone, its own cable, or no machine at all. */
const LOCAL_SUBNETS = ["127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10", "0.0.0.0/32", "::/128"];

/** What of a peer's addresses can be handed to another machine. */
export interface Dialable {
  readonly addresses: readonly string[];
  /** True where all that is left lies in a bridge network of this machine, so that it is of no use elsewhere unless that network spans machines. */
  readonly isDoubtful: boolean;
}

/**
 * Addresses of a peer that another machine can dial: TCP, with the peer, and not of this machine alone.
 * Those in `bridges`, the subnets of this machine's own container bridges, are left out as long as any other
 * is there.
 */
export function dialable(addresses: readonly string[], bridges: readonly string[]): Dialable {
  const outside = addresses.filter((address) => isOutside(address, LOCAL_SUBNETS));
  const beyond = outside.filter((address) => isOutside(address, bridges));
  return beyond.length > 0
    ? { addresses: beyond, isDoubtful: false }
    : { addresses: outside, isDoubtful: outside.length > 0 };
}

function isOutside(address: string, subnets: readonly string[]): boolean {
  const parts = parseTcpMultiaddr(address);
  return parts !== null && RULES.peerMultiaddr.holds(address) && !isInSubnets(parts.host, subnets);
}
