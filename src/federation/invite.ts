import * as z from "zod";
import { isPeerId } from "../settings/address.ts";
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
  let value: unknown;
  try {
    value = JSON.parse(payload);
  } catch {
    return { what: "its payload is no JSON" };
  }
  const read = PAYLOAD.safeParse(value);
  return read.success ? read.data : { what: read.error.issues[0]?.message ?? "its payload is malformed" };
}

const peers = { error: "its trusted peers must be peer ids, one at least" };
const addresses = { error: `its bootstrap addresses must each be ${RULES.peerMultiaddr.requirement}` };
const time = z.iso.datetime({ error: "its times can't be read" }).transform((text) => new Date(text));

/** What invitePayload writes; the first fault is told, in this order. */
const PAYLOAD = z
  .object(
    {
      trusted_peers: z.array(z.string(peers).refine(isPeerId, peers), peers).min(1, peers),
      bootstrap: z
        .array(z.string(addresses).refine(RULES.peerMultiaddr.holds, addresses), addresses)
        .min(1, addresses),
      issued_at: time,
      expires_at: time,
      cluster_name: field("cluster name", RULES.name),
      cluster_secret: field("cluster secret", RULES.hex64),
      storage_api_url: field("storage API URL", RULES.url),
      node_name: z.string({ error: "its node name must be a text, or null" }).nullable(),
      public_key: z
        .string({ error: "it has no public key" })
        .startsWith("-----BEGIN PUBLIC KEY-----", { error: "it has no public key" }),
    },
    { error: "its payload is no JSON object" },
  )
  .transform((payload): Invite => ({
    clusterName: payload.cluster_name,
    clusterSecret: payload.cluster_secret,
    trustedPeers: payload.trusted_peers,
    bootstrap: payload.bootstrap,
    storageApiUrl: payload.storage_api_url,
    nodeName: payload.node_name,
    issuedAt: payload.issued_at,
    expiresAt: payload.expires_at,
    publicPem: payload.public_key,
  }));

function field(name: string, rule: Rule) {
  const must = { error: `its ${name} must be ${rule.requirement}` };
  return z.string(must).refine((value) => rule.holds(value), must);
}

/** How long an invite is good for, from `24h`, `90m`, `7d`; null for anything else, and for more than 90 days. */
export function parseDuration(text: string): number | null {
  const match = /^([1-9][0-9]{0,4})([mhd])$/.exec(text);
  if (match === null) return null;
  const [, amount = "", unit = "m"] = match;
  const ms = Number(amount) * { m: 60_000, h: 3_600_000, d: 86_400_000 }[unit as "m" | "h" | "d"];
  return ms <= 90 * 86_400_000 ? ms : null;
}
