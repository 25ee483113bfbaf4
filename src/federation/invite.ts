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
  /** The certificates of a private CA for that URL, as STORAGE_API_CA has them. Null in invites before version 3. */
  readonly storageApiCa: string | null;
  /** The name for the new node, if the master has chosen one. */
  readonly nodeName: string | null;
  readonly issuedAt: Date;
  readonly expiresAt: Date;
  /** What lets one node register its name. Null in invites of version 1, which can't do that. */
  readonly registration: Registration | null;
  /** The master's public key, SPKI PEM: used to check the signature. Its id is the fingerprint. */
  readonly publicPem: string;
}

/** The part of an invite that a node keeps, and shows to the master when it registers its name. */
export interface Registration {
  /** 32 lower-case hex digits: the key of the invite's row in the master's database. It is not a secret. */
  readonly id: string;
  /** The master's signature over registrationText, as base64url. Without it, the id is worth nothing. */
  readonly signature: string;
}

const PREFIX = "fula-invite";
/**
 * Version 1 was written by 0.1.0 and 0.2.0: it has no registration. Version 3 has a private CA; an invite without one stays
 * at version 2, so that older nodes can read it.
 */
const VERSIONS = ["1", "2", "3"] as const;
type Version = (typeof VERSIONS)[number];
/** Far longer than any invite: 50 masters with five addresses each take 20 kB. */
const MAX_TOKEN_CHARACTERS = 100_000;
const BASE64URL = /^[A-Za-z0-9_-]+$/;

/**
 * The text that an invite's registration signs, as UTF-8. The first line is one that nothing else signs with this key.
 * The name and the times of an invite are not in it: the master has them in its database.
 */
export function registrationText({ id, pool }: { readonly id: string; readonly pool: string }): string {
  return `fula-node registration 1\n${JSON.stringify({ id, pool })}`;
}

/** A registration as one text, as it is saved in NODE_INVITE and sent to the master. */
export function formatRegistration({ id, signature }: Registration): string {
  return `${id}.${signature}`;
}

/** Reads what formatRegistration writes; null for any other text. */
export function parseRegistration(text: string): Registration | null {
  if (!RULES.inviteProof.holds(text)) return null;
  const [id = "", signature = ""] = text.split(".");
  return { id, signature };
}

/** The payload as text, with its keys in a fixed order. This is what gets signed. */
export function invitePayload(invite: Invite): string {
  const { registration, storageApiCa } = invite;
  return JSON.stringify({
    version: Number(versionOfInvite(invite)),
    ...(registration === null ? {} : { id: registration.id, registration: registration.signature }),
    cluster_name: invite.clusterName,
    cluster_secret: invite.clusterSecret,
    trusted_peers: invite.trustedPeers,
    bootstrap: invite.bootstrap,
    storage_api_url: invite.storageApiUrl,
    ...(storageApiCa === null ? {} : { storage_api_ca: storageApiCa }),
    node_name: invite.nodeName,
    issued_at: invite.issuedAt.toISOString(),
    expires_at: invite.expiresAt.toISOString(),
    public_key: invite.publicPem,
  });
}

/** The token, one line: `fula-invite.VERSION.PAYLOAD.SIGNATURE`, the last two as base64url. */
export function formatToken(
  invite: Pick<Invite, "registration" | "storageApiCa">,
  payloadBase64url: string,
  signatureBase64url: string,
): string {
  return `${PREFIX}.${versionOfInvite(invite)}.${payloadBase64url}.${signatureBase64url}`;
}

function versionOfInvite({
  registration,
  storageApiCa,
}: Pick<Invite, "registration" | "storageApiCa">): Version {
  if (registration === null) return "1";
  return storageApiCa === null ? "2" : "3";
}

/** Splits a token into its parts. A newer version is a fault of its own, since its remedy differs. */
export function splitToken(
  text: string,
):
  | { readonly version: Version; readonly payload: string; readonly signature: string }
  | { readonly fault: "malformed" | "newer"; readonly what: string } {
  const token = text.trim();
  if (token === "") return { fault: "malformed", what: "it is empty" };
  if (token.length > MAX_TOKEN_CHARACTERS)
    return { fault: "malformed", what: `it has ${token.length} characters, which is longer than any invite` };
  const [prefix, written, payload, signature, ...rest] = token.split(".");
  if (prefix !== PREFIX) return { fault: "malformed", what: `it does not begin with ${PREFIX}` };
  const version = VERSIONS.find((one) => one === written);
  if (version === undefined) {
    const newer = /^[0-9]{1,4}$/.test(written ?? "") && Number(written) > VERSIONS.length;
    return {
      fault: newer ? "newer" : "malformed",
      what: newer
        ? `it has version ${written ?? ""}, but this fula-node only reads versions up to ${VERSIONS.length}`
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
  return { version, payload, signature };
}

/**
 * Parses the payload of a token of that version. It must have exactly the fields of its version: a field that is not
 * understood could change what the others mean. `what` describes the problem, as the end of a sentence.
 */
export function readPayload(payload: string, version: Version): Invite | { readonly what: string } {
  let value: unknown;
  try {
    value = JSON.parse(payload);
  } catch {
    return { what: "its payload is not JSON" };
  }
  const read = PAYLOADS[version].safeParse(value);
  return read.success ? read.data : { what: read.error.issues[0]?.message ?? "its payload is malformed" };
}

const peers = { error: "its trusted peers must be a list of at least one peer id" };
const addresses = { error: `its bootstrap addresses must each be ${RULES.peerMultiaddr.requirement}` };
const time = z.iso.datetime({ error: "its times are malformed" }).transform((text) => new Date(text));

/** What invitePayload writes, in either version. The first problem is reported, in this order. */
const common = {
  trusted_peers: z.array(z.string(peers).refine(isPeerId, peers), peers).min(1, peers),
  bootstrap: z
    .array(z.string(addresses).refine(RULES.peerMultiaddr.holds, addresses), addresses)
    .min(1, addresses),
  issued_at: time,
  expires_at: time,
  cluster_name: field("cluster name", RULES.name),
  cluster_secret: field("cluster secret", RULES.hex64),
  storage_api_url: field("storage API URL", RULES.apiUrl),
  node_name: z.string({ error: "its node name must be a string or null" }).nullable(),
  public_key: z
    .string({ error: "it has no public key" })
    .startsWith("-----BEGIN PUBLIC KEY-----", { error: "it has no public key" }),
};

const registration = {
  id: z.string("it has no id").regex(/^[0-9a-f]{32}$/, "its id must be 32 hexadecimal digits"),
  registration: z
    .string("it has no registration")
    .regex(/^[A-Za-z0-9_-]{86}$/, "its registration must be a signature of 64 bytes in base64url"),
};

const PAYLOADS = {
  "1": payloadOf({ ...common, version: versionOf(1) }).transform((payload): Invite =>
    inviteOf(payload, null),
  ),
  "2": payloadOf({ ...common, ...registration, version: versionOf(2) }).transform((payload): Invite => {
    return inviteOf(payload, { id: payload.id, signature: payload.registration });
  }),
  "3": payloadOf({
    ...common,
    ...registration,
    storage_api_ca: field("CA of the storage API", RULES.certificates),
    version: versionOf(3),
  }).transform((payload): Invite => {
    const given = { id: payload.id, signature: payload.registration };
    return { ...inviteOf(payload, given), storageApiCa: payload.storage_api_ca };
  }),
} satisfies Record<Version, unknown>;

function versionOf(version: number) {
  return z.literal(version, { error: `its payload is not of version ${version}` });
}

function payloadOf<Shape extends z.ZodRawShape>(shape: Shape) {
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === "unrecognized_keys"
        ? "it has a field that invites of its version do not have"
        : "its payload is not a JSON object",
  });
}

function inviteOf(payload: z.output<z.ZodObject<typeof common>>, given: Registration | null): Invite {
  return {
    clusterName: payload.cluster_name,
    clusterSecret: payload.cluster_secret,
    trustedPeers: payload.trusted_peers,
    bootstrap: payload.bootstrap,
    storageApiUrl: payload.storage_api_url,
    storageApiCa: null,
    nodeName: payload.node_name,
    issuedAt: payload.issued_at,
    expiresAt: payload.expires_at,
    registration: given,
    publicPem: payload.public_key,
  };
}

function field(name: string, rule: Rule) {
  const problem = { error: `its ${name} must be ${rule.requirement}` };
  return z.string(problem).refine((value) => rule.holds(value), problem);
}

/** Parses a lifetime, such as `24h`, `90m` or `7d`, into ms. Null for anything else, and for more than `maxDays` days. */
export function parseDuration(text: string, maxDays = 90): number | null {
  const match = /^([1-9][0-9]{0,4})([mhd])$/.exec(text);
  if (match === null) return null;
  const [, amount = "", unit = "m"] = match;
  const ms = Number(amount) * { m: 60_000, h: 3_600_000, d: 86_400_000 }[unit as "m" | "h" | "d"];
  return ms <= maxDays * 86_400_000 ? ms : null;
}
