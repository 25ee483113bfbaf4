import * as z from "zod";
import { isPeerId } from "../settings/address.ts";
import { type Rule, RULES } from "../settings/rules.ts";

/** What a master gives to a new storage node, signed with the key that signs its snapshots. */
export interface Invite {
  readonly clusterName: string;
  /** 64 hex digits. Upstream derives it from the cluster name, so do not rely on it as a secret. */
  readonly clusterSecret: string;
  /** Cluster peer ids of the masters: the only peers that the node trusts. */
  readonly trustedPeers: readonly string[];
  /** TCP multiaddrs with peer ids. */
  readonly bootstrap: readonly string[];
  readonly storageApiUrl: string;
  /** The name for the new node, if the master has chosen one. */
  readonly nodeName: string | null;
  readonly issuedAt: Date;
  readonly expiresAt: Date;
  /** The master's public key, SPKI PEM: used to check the signature. Its id is the fingerprint. */
  readonly publicPem: string;
}

const PREFIX = "fula-invite";
const VERSION = 1;
/** Far longer than any invite: 50 masters with five addresses each take 20 kB. */
const MAX_TOKEN_CHARACTERS = 100_000;
const BASE64URL = /^[A-Za-z0-9_-]+$/;

/** The payload as text, with its keys in a fixed order. This is what gets signed. */
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

/** The token, one line: `fula-invite.1.PAYLOAD.SIGNATURE`, both base64url. */
export function formatToken(payloadBase64url: string, signatureBase64url: string): string {
  return `${PREFIX}.${VERSION}.${payloadBase64url}.${signatureBase64url}`;
}

/** Splits a token into its parts. A newer version is a fault of its own, since its remedy differs. */
export function splitToken(
  text: string,
):
  | { readonly payload: string; readonly signature: string }
  | { readonly fault: "malformed" | "newer"; readonly what: string } {
  const token = text.trim();
  if (token === "") return { fault: "malformed", what: "it is empty" };
  if (token.length > MAX_TOKEN_CHARACTERS)
    return { fault: "malformed", what: `it has ${token.length} characters, which is longer than any invite` };
  const [prefix, version, payload, signature, ...rest] = token.split(".");
  if (prefix !== PREFIX) return { fault: "malformed", what: `it does not begin with ${PREFIX}.` };
  if (version !== String(VERSION)) {
    const newer = /^[0-9]{1,4}$/.test(version ?? "") && Number(version) > VERSION;
    return {
      fault: newer ? "newer" : "malformed",
      what: newer
        ? `it has version ${version ?? ""}, but this fula-node only reads version ${VERSION}`
        : "it contains no version",
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
      fault: "malformed",
      what: "it is incomplete or altered: it must have four parts, separated by dots",
    };
  }
  return { payload, signature };
}

/** Parses the payload. `what` describes the problem, as the end of a sentence. */
export function readPayload(payload: string): Invite | { readonly what: string } {
  let value: unknown;
  try {
    value = JSON.parse(payload);
  } catch {
    return { what: "its payload is not JSON" };
  }
  const read = PAYLOAD.safeParse(value);
  return read.success ? read.data : { what: read.error.issues[0]?.message ?? "its payload is malformed" };
}

const peers = { error: "its trusted peers must be a list of at least one peer id" };
const addresses = { error: `its bootstrap addresses must each be ${RULES.peerMultiaddr.requirement}` };
const time = z.iso.datetime({ error: "its times are malformed" }).transform((text) => new Date(text));

/** What invitePayload writes. The first problem is reported, in this order. */
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
      node_name: z.string({ error: "its node name must be a string or null" }).nullable(),
      public_key: z
        .string({ error: "it has no public key" })
        .startsWith("-----BEGIN PUBLIC KEY-----", { error: "it has no public key" }),
    },
    { error: "its payload is not a JSON object" },
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
  const problem = { error: `its ${name} must be ${rule.requirement}` };
  return z.string(problem).refine((value) => rule.holds(value), problem);
}

/** Parses an invite's lifetime, such as `24h`, `90m` or `7d`, into ms. Null for anything else, and for more than 90 days. */
export function parseDuration(text: string): number | null {
  const match = /^([1-9][0-9]{0,4})([mhd])$/.exec(text);
  if (match === null) return null;
  const [, amount = "", unit = "m"] = match;
  const ms = Number(amount) * { m: 60_000, h: 3_600_000, d: 86_400_000 }[unit as "m" | "h" | "d"];
  return ms <= 90 * 86_400_000 ? ms : null;
}
