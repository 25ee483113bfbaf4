import * as z from "zod";
import { OperatorError } from "../errors.ts";
import type { SigningKey, VerifyingKey } from "../machine/signing.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import { type Rule, RULES } from "../settings/rules.ts";

/** What a master gives to a second one, signed with the key that signs its snapshots. No part of it is a secret. */
export interface MasterInvite {
  /** 32 lower-case hex digits: the key of its row in the database that both will share. */
  readonly id: string;
  readonly clusterName: string;
  /** Cluster peer ids of the masters. */
  readonly trustedPeers: readonly string[];
  /** A TCP multiaddr with a peer id, of the master that made it. */
  readonly bootstrap: string;
  readonly database: {
    readonly host: string;
    readonly port: string;
    readonly name: string;
    readonly user: string;
    readonly ssl: "verify-full" | "require" | "disable";
    /** The CA of its certificate, as POSTGRES_CA has it. Null: a public one, or none is checked. */
    readonly ca: string | null;
  };
  /** Settings that must be equal on every master of a database, where they are not the defaults. */
  readonly settings: Readonly<Record<string, string>>;
  readonly issuedAt: Date;
  readonly expiresAt: Date;
  /** SPKI PEM: used to check the signature. Its id is the fingerprint. */
  readonly publicPem: string;
}

/** The secrets that all masters of a database share. An invite has none of them. */
export const SHARED_SECRETS = [
  "POSTGRES_PASSWORD",
  "CLUSTER_SECRET",
  "JWT_SECRET",
  "SESSION_SECRET",
  "ENCRYPTION_KEY",
  "SYSTEM_KEY",
] as const;

/**
 * Whichever master runs the billing or takes a request, accounts get the same answer. And masters exchange content only if
 * both or none connect over private addresses.
 */
const SHARED_SETTINGS: readonly string[] = [
  "KUBO_PRIVATE_NETWORK",
  "POOL_API",
  "CLUSTER_REPLICATION_MIN",
  "CLUSTER_REPLICATION_MAX",
  "NODE_NAMES_PER_OWNER",
  "NODE_REGISTRATION",
  "VAULT_ADDRESS",
  "REFERRAL_BONUSES_ENABLED",
  "FREE_TIER_BYTES",
  "CREDIT_GATE",
  "FREE_PENDING_PINS",
  "PIN_DEADLINE_MINUTES",
  "FULA_PER_GB_MONTH",
  "FULA_BUCKET_ROOT_CAS",
  "FULA_EIP712_AUTH",
];

/** Those of a master's settings that an invite has. */
export function sharedSettings(
  values: (key: string) => string | undefined,
): Readonly<Record<string, string>> {
  return Object.fromEntries(
    SHARED_SETTINGS.flatMap((key) => {
      const value = values(key);
      const { byDefault } = MASTER_SETTINGS.find((spec) => spec.key === key) ?? {};
      return value === undefined || value === byDefault ? [] : [[key, value]];
    }),
  );
}

const PREFIX = "fula-master-invite";
const VERSION = 1;
const MAX_TOKEN_CHARACTERS = 100_000;
const TOKEN = /^fula-master-invite\.([0-9]{1,4})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)$/;

/** True if a text is meant as an invite of a master, whether or not it is valid. */
export function isMasterInvite(text: string): boolean {
  return text.trim().startsWith(`${PREFIX}.`);
}

/** The token, one line: `fula-master-invite.1.PAYLOAD.SIGNATURE`. The kind in the payload is signed, too. */
export function signMasterInvite(invite: MasterInvite, key: SigningKey): string {
  const { database } = invite;
  const text = JSON.stringify({
    kind: "master",
    version: VERSION,
    id: invite.id,
    cluster_name: invite.clusterName,
    trusted_peers: invite.trustedPeers,
    bootstrap: invite.bootstrap,
    database,
    settings: invite.settings,
    issued_at: invite.issuedAt.toISOString(),
    expires_at: invite.expiresAt.toISOString(),
    public_key: invite.publicPem,
  });
  const payload = Buffer.from(text, "utf8");
  const signature = Buffer.from(key.sign(payload)).toString("base64url");
  return `${PREFIX}.${VERSION}.${payload.toString("base64url")}.${signature}`;
}

/** An invite whose signature matches the public key in it. */
interface VerifiedMasterInvite {
  readonly invite: MasterInvite;
  readonly fingerprint: string;
  readonly expired: boolean;
}

/**
 * Reads a token and checks its signature. Throws `integrity` for a malformed or altered token and for an unexpected key,
 * `newer` for a later version. An expired invite is no error here, since `invite show` must be able to print one.
 */
export function readMasterInvite(
  token: string,
  options: {
    readonly now: Date;
    /** The fingerprint that the operator got over another channel. Null if there is none. */
    readonly expected: string | null;
    readonly parseKey: (pem: string, path: string) => VerifyingKey;
  },
): VerifiedMasterInvite {
  const [, version, text = "", signature = ""] =
    token.length > MAX_TOKEN_CHARACTERS ? [] : (TOKEN.exec(token.trim()) ?? []);
  if (version === undefined) throw refuse("This is not an invite: it is incomplete or altered.");
  if (Number(version) > VERSION)
    throw new OperatorError({
      exit: "newer",
      what: `This invite has version ${version}, but this fula-node only reads version ${VERSION}.`,
      remedy: "Use a newer fula-node.",
    });
  const payload = Buffer.from(text, "base64url");
  const invite = parsePayload(payload.toString("utf8"));
  let key: VerifyingKey;
  try {
    key = options.parseKey(invite.publicPem, "the invite's key");
  } catch (cause) {
    throw refuse("The invite's key is not an ed25519 key.", cause);
  }
  if (!key.verify(payload, Buffer.from(signature, "base64url")))
    throw refuse("The invite's signature is not valid: the invite was altered.");
  if (options.expected !== null && options.expected.trim().toLowerCase() !== key.id)
    throw refuse(`The invite is signed by the key ${key.id}, not by ${options.expected}.`);
  return { invite, fingerprint: key.id, expired: invite.expiresAt.getTime() <= options.now.getTime() };
}

/** The error (`integrity`) of an invite that must not be used. */
export function refuse(what: string, cause?: unknown): OperatorError {
  return new OperatorError({
    exit: "integrity",
    what,
    why: "An invite decides which database this master uses, and which masters it trusts.",
    remedy: "Ask the operator of the other master for a new invite (fula-node invite create --master).",
    cause,
  });
}

function parsePayload(text: string): MasterInvite {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw refuse("This invite can't be read: its payload is not JSON.", cause);
  }
  const read = PAYLOAD.safeParse(value);
  if (!read.success) {
    const [issue] = read.error.issues;
    throw refuse(`This invite can't be read: its ${issue?.path.join(".") || "payload"} is not valid.`);
  }
  const { data } = read;
  return {
    id: data.id,
    clusterName: data.cluster_name,
    trustedPeers: data.trusted_peers,
    bootstrap: data.bootstrap,
    database: data.database,
    settings: data.settings,
    issuedAt: new Date(data.issued_at),
    expiresAt: new Date(data.expires_at),
    publicPem: data.public_key,
  };
}

const ruled = (rule: Rule) => z.string().refine((value) => rule.holds(value));

/** Exactly these fields: one that is not understood could change what the others mean. */
const PAYLOAD = z.strictObject({
  kind: z.literal("master"),
  version: z.literal(VERSION),
  id: z.string().regex(/^[0-9a-f]{32}$/),
  cluster_name: ruled(RULES.name),
  trusted_peers: z.array(ruled(RULES.peerIds)).min(1),
  bootstrap: ruled(RULES.peerMultiaddr),
  database: z.strictObject({
    host: ruled(RULES.host),
    port: ruled(RULES.port),
    name: ruled(RULES.identifier),
    user: ruled(RULES.identifier),
    ssl: z.enum(["verify-full", "require", "disable"]),
    ca: ruled(RULES.certificates).nullable(),
  }),
  settings: z.record(z.string(), z.string()).refine((given) =>
    Object.entries(given).every(([key, value]) => {
      const spec = MASTER_SETTINGS.find((one) => one.key === key);
      return SHARED_SETTINGS.includes(key) && spec?.rule.holds(value) === true;
    }),
  ),
  issued_at: z.iso.datetime(),
  expires_at: z.iso.datetime(),
  public_key: z.string().startsWith("-----BEGIN PUBLIC KEY-----"),
});
