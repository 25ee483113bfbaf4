import type { ClusterReader } from "../cluster/client.ts";
import { OperatorError } from "../errors.ts";
import type { SigningKey, VerifyingKey } from "../machine/signing.ts";
import { dialable } from "../settings/address.ts";
import { formatToken, type Invite, invitePayload, readPayload, splitToken } from "./invite.ts";

/** An invite ready to be handed over. */
interface CreatedInvite {
  readonly token: string;
  readonly invite: Invite;
  /** The signing key's id: to be compared by another way than the token came. */
  readonly fingerprint: string;
  /** True where no address was found but such as other machines can hardly dial. */
  readonly isDoubtful: boolean;
}

/**
 * Makes an invite to this master's pool. Throws `unavailable` where the cluster peer can't be asked, and
 * `settings` where it has no address that another machine can dial.
 */
export async function createInvite(options: {
  readonly cluster: ClusterReader;
  readonly key: SigningKey;
  readonly now: Date;
  readonly lifetimeMs: number;
  readonly clusterName: string;
  readonly clusterSecret: string;
  /** Cluster peer ids of the other masters. */
  readonly otherMasters: readonly string[];
  readonly storageApiUrl: string;
  readonly nodeName: string | null;
  /** Addresses to give instead of those that the peer tells. */
  readonly bootstrap: readonly string[];
  /** Subnets of this machine's container bridges. */
  readonly bridges: readonly string[];
}): Promise<CreatedInvite> {
  const { key, now } = options;
  const self = await options.cluster.identity();
  const { addresses: bootstrap, isDoubtful } =
    options.bootstrap.length > 0
      ? { addresses: options.bootstrap, isDoubtful: false }
      : dialable(self.addresses, options.bridges);
  if (bootstrap.length === 0) {
    throw new OperatorError({
      exit: "settings",
      what: "The cluster peer tells no address that another machine can dial.",
      remedy: "Name one: --bootstrap /dns4/HOST/tcp/9096/p2p/PEERID.",
    });
  }
  const invite: Invite = {
    clusterName: options.clusterName,
    clusterSecret: options.clusterSecret,
    trustedPeers: [self.id, ...options.otherMasters.filter((id) => id !== self.id)],
    bootstrap,
    storageApiUrl: options.storageApiUrl,
    nodeName: options.nodeName,
    issuedAt: now,
    expiresAt: new Date(now.getTime() + options.lifetimeMs),
    publicPem: key.publicPem,
  };
  const payload = Buffer.from(invitePayload(invite), "utf8");
  const token = formatToken(
    payload.toString("base64url"),
    Buffer.from(key.sign(payload)).toString("base64url"),
  );
  return { token, invite, fingerprint: key.id, isDoubtful };
}

/** An invite whose signature fits the key that it carries. */
interface VerifiedInvite {
  readonly invite: Invite;
  readonly fingerprint: string;
  readonly expired: boolean;
}

const FETCH_ANOTHER = "Ask the master's operator for another one: fula-node invite create.";

/**
 * Reads a token and checks its signature. Throws `integrity` for garbage, an altered token and another
 * key than the expected one, `newer` for a version to come. Expiry is told, not thrown: `invite show` may
 * look at an old one.
 */
export function readInvite(
  token: string,
  options: {
    readonly now: Date;
    /** The fingerprint that the operator was told by another way; null: none was. */
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
    throw refuse(`This is no invite: ${parts.what}.`);
  }
  const payload = Buffer.from(parts.payload, "base64url");
  const invite = readPayload(payload.toString("utf8"));
  if ("what" in invite) throw refuse(`This invite can't be read: ${invite.what}.`);
  const key = parseOr(options.parseKey, invite.publicPem);
  if (!key.verify(payload, Buffer.from(parts.signature, "base64url")))
    throw refuse("The invite's signature does not fit: it was altered.");
  if (options.expected !== null && options.expected !== key.id) {
    throw refuse(`The invite is signed by the key ${key.id}, not by ${options.expected}.`);
  }
  return { invite, fingerprint: key.id, expired: invite.expiresAt.getTime() <= options.now.getTime() };
}

/** Throws `integrity` for an invite whose time is over. */
export function refuseExpired({ invite, expired }: VerifiedInvite): void {
  if (expired) throw refuse(`The invite has expired at ${invite.expiresAt.toISOString()}.`);
}

function parseOr(parse: (pem: string, path: string) => VerifyingKey, pem: string): VerifyingKey {
  try {
    return parse(pem, "the invite's key");
  } catch (cause) {
    throw refuse("The invite's key is no ed25519 key.", cause);
  }
}

function refuse(what: string, cause?: unknown): OperatorError {
  return new OperatorError({
    exit: "integrity",
    what,
    why: "Whoever writes an invite decides whom this node obeys.",
    remedy: FETCH_ANOTHER,
    cause,
  });
}
