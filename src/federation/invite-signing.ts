import type { ClusterReader, PeerIdentity } from "../cluster/client.ts";
import { OperatorError } from "../errors.ts";
import type { SigningKey, VerifyingKey } from "../machine/signing.ts";
import { dialable } from "../settings/address.ts";
import {
  formatToken,
  type Invite,
  invitePayload,
  type Registration,
  registrationText,
  readPayload,
  splitToken,
} from "./invite.ts";

/** A signed invite. */
interface CreatedInvite {
  readonly token: string;
  readonly invite: Invite & { readonly registration: Registration };
  /** The signing key's id. Compare it over another channel than the one the token came by. */
  readonly fingerprint: string;
}

/**
 * Creates an invite to this master's pool. Throws `unavailable` if the cluster peer does not respond, and
 * `settings` if it has no address that another machine can dial.
 */
export async function createInvite(options: {
  readonly cluster: ClusterReader;
  readonly key: SigningKey;
  /** The id of the invite: 128 random bits as lower-case hex. */
  readonly id: string;
  readonly now: Date;
  readonly lifetimeMs: number;
  readonly clusterName: string;
  readonly clusterSecret: string;
  /** Cluster peer ids of the other masters. */
  readonly otherMasters: readonly string[];
  /** Where nodes reach the ipfs-clusters of the other masters, as far as it is known. */
  readonly otherAddresses: readonly string[];
  readonly storageApiUrl: string;
  /** See Invite. */
  readonly storageApiCa: string | null;
  readonly nodeName: string | null;
  /** Addresses to use instead of those that the cluster peer reports. */
  readonly bootstrap: readonly string[];
  /** Subnets of this machine's container bridges. */
  readonly bridges: readonly string[];
}): Promise<CreatedInvite> {
  const { key, id, now } = options;
  const self = await options.cluster.identity();
  const bootstrap = options.bootstrap.length > 0 ? options.bootstrap : addressesFor(self, options.bridges);
  const text = registrationText({ id, pool: options.clusterName });
  const invite = {
    clusterName: options.clusterName,
    clusterSecret: options.clusterSecret,
    trustedPeers: [self.id, ...options.otherMasters.filter((other) => other !== self.id)],
    // Once this master is lost, a node that starts again still finds the pool.
    bootstrap: [...bootstrap, ...options.otherAddresses],
    storageApiUrl: options.storageApiUrl,
    storageApiCa: options.storageApiCa,
    nodeName: options.nodeName,
    issuedAt: now,
    expiresAt: new Date(now.getTime() + options.lifetimeMs),
    registration: { id, signature: base64url(key.sign(Buffer.from(text, "utf8"))) },
    publicPem: key.publicPem,
  };
  const payload = Buffer.from(invitePayload(invite), "utf8");
  const token = formatToken(invite, payload.toString("base64url"), base64url(key.sign(payload)));
  return { token, invite, fingerprint: key.id };
}

/** Where other machines reach this master's ipfs-cluster. Throws (`settings`) if it reports no such address. */
export function addressesFor(
  { id, addresses: reported }: Pick<PeerIdentity, "id" | "addresses">,
  bridges: readonly string[],
): readonly string[] {
  const { addresses, isDoubtful } = dialable(reported, bridges);
  if (addresses.length > 0 && !isDoubtful) return addresses;
  throw new OperatorError({
    exit: "settings",
    what: "ipfs-cluster reports no address that another machine can dial.",
    ...(isDoubtful
      ? { why: `It only has addresses of this machine's container networks: ${addresses.join(" ")}.` }
      : {}),
    remedy: `Pass one that the others can reach: --bootstrap /dns4/HOST/tcp/9096/p2p/${id}.`,
  });
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64url");
}

/** An invite whose signature matches the public key in it. */
interface VerifiedInvite {
  readonly invite: Invite;
  readonly fingerprint: string;
  readonly expired: boolean;
}

const REQUEST_NEW_INVITE = "Ask the master's operator for a new invite (fula-node invite create).";

/**
 * Reads a token and checks its signature. Throws `integrity` for a malformed or altered token and for an unexpected
 * key, `newer` for a later version. An expired invite is not an error here (see `expired`): `invite show` must be
 * able to print one.
 */
export function readInvite(
  token: string,
  options: {
    readonly now: Date;
    /** The fingerprint that the operator got over another channel. Null if there is none. */
    readonly expected: string | null;
    readonly parseKey: (pem: string, path: string) => VerifyingKey;
  },
): VerifiedInvite {
  const parts = splitToken(token);
  if ("fault" in parts) {
    if (parts.fault === "newer")
      throw new OperatorError({
        exit: "newer",
        what: `This invite can't be read: ${parts.what}.`,
        remedy: "Use a newer fula-node.",
      });
    throw refuse(`This is not an invite: ${parts.what}.`);
  }
  const payload = Buffer.from(parts.payload, "base64url");
  const invite = readPayload(payload.toString("utf8"), parts.version);
  if ("what" in invite) throw refuse(`This invite can't be read: ${invite.what}.`);
  const key = parseOr(options.parseKey, invite.publicPem);
  if (!key.verify(payload, Buffer.from(parts.signature, "base64url")))
    throw refuse("The invite's signature is not valid: the invite was altered.");
  if (options.expected !== null && options.expected.trim().toLowerCase() !== key.id) {
    throw refuse(`The invite is signed by the key ${key.id}, not by ${options.expected}.`);
  }
  return { invite, fingerprint: key.id, expired: invite.expiresAt.getTime() <= options.now.getTime() };
}

/** Throws `integrity` for an expired invite. */
export function refuseExpired({ invite, expired }: VerifiedInvite): void {
  if (expired) throw refuse(`The invite expired at ${invite.expiresAt.toISOString()}.`);
}

function parseOr(parse: (pem: string, path: string) => VerifyingKey, pem: string): VerifyingKey {
  try {
    return parse(pem, "the invite's key");
  } catch (cause) {
    throw refuse("The invite's key is not an ed25519 key.", cause);
  }
}

function refuse(what: string, cause?: unknown): OperatorError {
  return new OperatorError({
    exit: "integrity",
    what,
    why: "An invite decides which masters this node trusts.",
    remedy: REQUEST_NEW_INVITE,
    cause,
  });
}
