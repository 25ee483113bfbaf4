import type { ClusterReader, PeerIdentity } from "../cluster/client.ts";
import type { Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { poll, readValues } from "../settings/node-context.ts";
import { countKuboPeers } from "./kubo-peers.ts";
import { watchPinset } from "./pinset-watch.ts";
import { OWN_CLUSTER, type StorageContext } from "./storage-context.ts";

/** Pings go out every 15 s (CLUSTER_MONITORPINGINTERVAL), and a master counts who has sent one. */
const MEMBER_DEADLINE_MS = 120_000;
/** ipfs-cluster connects kubo to the others' 30 seconds after its start. */
const KUBO_DEADLINE_MS = 60_000;

/** Membership in the pool: not made here but by ipfs-cluster, so it is only asked for. */
export function membership(context: StorageContext): StepSpec<null, Change> {
  return {
    id: "membership",
    title: "membership in the pool",
    touches:
      "Nothing: it waits until a master counts this node among its peers, and until the pinset here has as many pins as the master's.",
    probe: (): Promise<Finding<null>> =>
      Promise.resolve({
        state: "ours",
        seen: null,
        evidence: { "asked when all is up": "own id, a master's peers, the pinset" },
      }),
    plan: () => [],
    apply: () => Promise.resolve(),

    async verify(host) {
      const trusted = ((await readValues(host, context))("MASTER_CLUSTER_PEERIDS") ?? "").split(",");
      const { openCluster, tell } = context;
      const cluster = openCluster(OWN_CLUSTER);
      const { id } = await cluster.identity();
      if (trusted.includes(id)) throw obeysItself(id);
      const last: { peers: readonly PeerIdentity[]; looks: number } = { peers: [], looks: 0 };
      const isMember = await poll(host, MEMBER_DEADLINE_MS, async () => {
        last.peers = await peersOf(cluster);
        last.looks += 1;
        const masters = last.peers.filter((peer) => trusted.includes(peer.id) && peer.error === "");
        if (masters.some(({ clusterPeers }) => clusterPeers.includes(id))) return true;
        tell.progress(
          masters.length === 0
            ? "waiting for a master to be connected"
            : "waiting for a master to count this node",
        );
        await host.clock.wait(900);
        return null;
      });
      if (isMember !== true) throw noMember(id, trusted, last.peers);
      await watchPinset(host, context, { trusted, isNewMember: last.looks > 1 });
      await watchKubo(host, context);
    },
  };
}

/** None while the peer can't ask around: it may have just started, or the network may be cut. */
async function peersOf(cluster: ClusterReader): Promise<readonly PeerIdentity[]> {
  try {
    return await cluster.peers();
  } catch (thrown) {
    if (thrown instanceof OperatorError) return [];
    throw thrown;
  }
}

/** A member whose kubo knows no other one can't fetch anything. */
async function watchKubo(host: HostReader, { tell }: StorageContext): Promise<void> {
  const connected = await poll(host, KUBO_DEADLINE_MS, async () => {
    if ((await countKuboPeers(host)) !== 0) return true;
    tell.progress("waiting for kubo to be connected to another");
    await host.clock.wait(900);
    return null;
  });
  if (connected === true) return;
  throw new OperatorError({
    exit: "unhealthy",
    what: "This node is a member of the pool, but its kubo is connected to no other one, so no content arrives.",
    remedy:
      "Where the pool has private addresses, set KUBO_PRIVATE_NETWORK=true here and on the masters; otherwise see that port 4001 is open; then run again.",
  });
}

function obeysItself(id: string): OperatorError {
  return new OperatorError({
    exit: "unhealthy",
    what: `This node's cluster peer ${id} is among those that it obeys.`,
    why: "Only masters may change the pinset.",
    remedy: "Take it out of MASTER_CLUSTER_PEERIDS, then run again.",
  });
}

function noMember(id: string, trusted: readonly string[], peers: readonly PeerIdentity[]): OperatorError {
  const seen = peers.filter((peer) => trusted.includes(peer.id) && peer.error === "");
  const why =
    seen.length === 0
      ? `None of the masters (${trusted.join(", ")}) is connected.`
      : `${seen.map((peer) => peer.peername).join(", ")} is connected, but does not count ${id} among its peers.`;
  return new OperatorError({
    exit: "unhealthy",
    what: "This node is not a member of the pool.",
    why,
    remedy:
      "See that MASTER_CLUSTER_BOOTSTRAP can be reached from here, that port 9096 is open, and that CLUSTER_SECRET is the pool's; then run again.",
  });
}
