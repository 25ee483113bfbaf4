import { OperatorError, type VerbExit } from "../errors.ts";
import { createInvite, readInvite } from "../federation/invite-signing.ts";
import { parseDuration } from "../federation/invite.ts";
import { openOwnCluster, readInstalledMaster } from "../join/installed-node.ts";
import { tokenText } from "../join/storage-invite.ts";
import { RULES } from "../settings/rules.ts";
import type { World } from "../world.ts";

/** The flags of `invite create`. */
export interface InviteFlags {
  readonly baseDir?: string;
  readonly expires: string;
  readonly name?: string;
  readonly storageApiUrl?: string;
  readonly bootstrap: readonly string[];
}

/** `invite create`: prints the invite (one line), and the fingerprint to compare over another channel. */
export async function inviteCreate(flags: InviteFlags, world: World): Promise<VerbExit> {
  const lifetimeMs = parseDuration(flags.expires);
  if (lifetimeMs === null)
    throw usage(
      `--expires is ${JSON.stringify(flags.expires)}; it must be a duration such as 90m, 24h or 7d, at most 90 days.`,
    );
  const invalid = flags.bootstrap.find((address) => !RULES.peerMultiaddr.holds(address));
  if (invalid !== undefined)
    throw usage(`--bootstrap is ${JSON.stringify(invalid)}; it must be ${RULES.peerMultiaddr.requirement}.`);
  const master = await readInstalledMaster(world, flags.baseDir);
  const { layout, values } = master;
  const [clusterName, storageApiUrl] = [
    values("CLUSTERNAME"),
    flags.storageApiUrl ?? values("STORAGE_API_URL"),
  ];
  if (clusterName === undefined || storageApiUrl === undefined || !RULES.url.holds(storageApiUrl)) {
    throw new OperatorError({
      exit: "settings",
      what:
        clusterName === undefined
          ? "CLUSTERNAME is not set."
          : "The address at which nodes reach the storage API is unknown.",
      remedy:
        clusterName === undefined
          ? "Run join-as-master --set CLUSTERNAME=NAME."
          : "Pass --storage-api-url https://HOST, or run join-as-master --set STORAGE_API_URL=https://HOST.",
    });
  }
  const { token, invite, fingerprint, isDoubtful } = await createInvite({
    cluster: openOwnCluster(world, master),
    key: await world.readSigningKey(layout.signingKey),
    now: world.host.clock.now(),
    lifetimeMs,
    clusterName,
    clusterSecret: values("CLUSTER_SECRET") ?? world.hash(clusterName),
    otherMasters: values("MASTER_CLUSTER_PEERIDS")?.split(",") ?? [],
    storageApiUrl,
    nodeName: flags.name ?? null,
    bootstrap: flags.bootstrap,
    bridges: await world.host.docker.bridgeSubnets(),
  });
  if (isDoubtful) {
    const text = `ipfs-cluster only reports addresses of this machine's container networks (${invite.bootstrap.join(" ")}), which other machines probably can't reach. Pass one that they can reach: --bootstrap /dns4/HOST/tcp/9096/p2p/${invite.trustedPeers[0] ?? "PEERID"}.`;
    world.reporter.listen({ type: "warning", text });
  }
  world.reporter.result({
    data: { verb: "invite create", token, fingerprint, expiresAt: invite.expiresAt.toISOString() },
    lines: [
      token,
      "",
      `Key fingerprint: ${fingerprint} (send it over another channel than the line above)`,
      `Valid until:     ${invite.expiresAt.toISOString()}`,
    ],
  });
  return "ok";
}

/** `invite show TOKEN`: prints an invite's contents. Exit 28 if it was altered. The cluster secret is not printed. */
export async function inviteShow(
  token: string,
  flags: { readonly fingerprint?: string },
  world: World,
): Promise<VerbExit> {
  const { invite, fingerprint, expired } = readInvite(await tokenText(token, world), {
    now: world.host.clock.now(),
    expected: flags.fingerprint ?? null,
    parseKey: await world.loadKeyParser(),
  });
  const { clusterSecret: _, publicPem: __, ...printable } = invite;
  world.reporter.result({
    data: { verb: "invite show", ...printable, fingerprint, expired },
    lines: world.reporter.table([
      ["pool", invite.clusterName],
      ["trusted masters", invite.trustedPeers.join(" ")],
      ["addresses", invite.bootstrap.join(" ")],
      ["storage API", invite.storageApiUrl],
      ["name", invite.nodeName ?? "chosen by the node"],
      ["issued", invite.issuedAt.toISOString()],
      [expired ? "EXPIRED" : "valid until", invite.expiresAt.toISOString()],
      ["key fingerprint", `${fingerprint} (compare it with the one from the master's operator)`],
    ]),
  });
  return "ok";
}

function usage(what: string): OperatorError {
  return new OperatorError({ exit: "usage", what });
}
