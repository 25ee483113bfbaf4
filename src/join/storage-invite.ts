import { tokenText } from "../commands/invite.ts";
import type { World } from "../world.ts";
import { OperatorError } from "../errors.ts";
import { readInvite, refuseExpired } from "../federation/invite-signing.ts";
import type { Learnt } from "../federation/trust.ts";

/**
 * Reads the invite of a join, shows what it says, and has a person compare its key's fingerprint unless that
 * was given. Throws `integrity` for one that is altered, expired or signed by another key, `newer` for a
 * version to come, `usage` where there is none to read.
 */
export async function learnFromInvite(
  flags: {
    readonly invite: string;
    readonly fingerprint?: string;
    readonly dryRun: boolean;
    readonly yes: boolean;
  },
  world: World,
): Promise<Learnt> {
  const { host, reporter, questions } = world;
  const verified = readInvite(await tokenText(flags.invite, world), {
    now: host.clock.now(),
    expected: flags.fingerprint ?? null,
    parseKey: world.parseVerifyingKey,
  });
  refuseExpired(verified);
  const { invite, fingerprint } = verified;
  const lines = [
    ["Invite to pool", invite.clusterName],
    ["masters to obey", invite.trustedPeers.join(" ")],
    ["found at", invite.bootstrap.join(" ")],
    ["storage API", invite.storageApiUrl],
    ["name", invite.nodeName ?? "the node's own choice"],
    ["key fingerprint", fingerprint],
  ];
  for (const line of reporter.table(lines)) reporter.note(line);
  const asks = questions !== null && flags.fingerprint === undefined && !flags.dryRun && !flags.yes;
  if (
    asks &&
    !(await questions.confirm("Is that the fingerprint which the master's operator told you?", false))
  ) {
    throw new OperatorError({
      exit: "integrity",
      what: "The invite's fingerprint is not the one that you were told.",
      why: "Whoever writes an invite decides whom this node obeys.",
      remedy: "Ask the master's operator for another invite, and for its fingerprint by another way.",
    });
  }
  return {
    source: "The invite",
    isSigned: true,
    values: new Map([
      ["CLUSTERNAME", invite.clusterName],
      ["CLUSTER_SECRET", invite.clusterSecret],
      ["MASTER_CLUSTER_PEERIDS", invite.trustedPeers.join(",")],
      ["MASTER_CLUSTER_BOOTSTRAP", invite.bootstrap.join(",")],
      ["STORAGE_API_URL", invite.storageApiUrl],
      ...(invite.nodeName === null ? [] : ([["CLUSTER_PEERNAME", invite.nodeName]] as const)),
    ]),
  };
}
