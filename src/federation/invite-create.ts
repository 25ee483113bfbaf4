import type { ClusterReader } from "../cluster/client.ts";
import { OperatorError } from "../errors.ts";
import type { SigningKey } from "../machine/signing.ts";
import { dialable } from "../settings/address.ts";
import { formatToken, type Invite, invitePayload } from "./invite.ts";

/** An invite ready to be handed over. */
export interface CreatedInvite {
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
