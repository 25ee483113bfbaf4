import type { ClusterReader, PeerIdentity } from "../cluster/client.ts";
import type { Change, Finding, StepSpec } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { type DataGuard, type NodeContext, poll, readValues } from "../settings/context.ts";
import { STORAGE_NAMES, type StorageLayout } from "../settings/layout.ts";
import type { NodesClient } from "./announce-name.ts";
import {
  ageOfCount,
  hasMore,
  isEnough,
  progressOf,
  type Rest,
  resultOf,
  type Sync,
  SYNC_DEADLINE_MS,
  type MasterCounts,
  warningOf,
} from "./pinset-sync.ts";
import { askMasterCount, countKuboPeers, countPins } from "./sync-counts.ts";

/** Pings go out every 15 s (CLUSTER_MONITORPINGINTERVAL), and a master counts who has sent one. */
const MEMBER_DEADLINE_MS = 120_000;
/** ipfs-cluster connects kubo to the others' 30 seconds after its start. */
const KUBO_DEADLINE_MS = 60_000;
/**
 * Masters send their newest state again at an interval (CLUSTER_CRDT_REBROADCASTINTERVAL): until then none is known here.
 * Writers made here do so every 10 seconds; an adopted one has ipfs-cluster's default of a minute.
 */
const FIRST_NEWS_MS = 75_000;
const QUIET_MS = 6_000;
/** A master's pinset moves while this node syncs, and what was unpinned meanwhile never comes. */
const ASK_EVERY_MS = 10_000;

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

/**
 * Waits until this node's pinset has as many pins as the master says its own has, or, where no master tells,
 * until it stops growing; a node that has been up for long is then only counted. A deadline that passes, or
 * a pinset that stays larger than the master's, is a warning: the pinset goes on by itself.
 */
async function watchPinset(
  host: HostReader,
  context: StorageContext,
  wish: { readonly trusted: readonly string[]; readonly isNewMember: boolean },
): Promise<void> {
  const { openCluster, tell } = context;
  const cluster = openCluster(OWN_CLUSTER);
  const askMaster = await openAsker(host, context, wish.trusted);
  const restOf = await openRest(host, wish.isNewMember);
  const last: { sync: Sync } = { sync: { own: null, master: { unknown: "" }, before: null } };
  const age = () =>
    "pins" in last.sync.master
      ? ageOfCount(host.clock.now().getTime() - last.sync.master.countedAt.getTime())
      : "";
  tell.progress(progressOf(last.sync, age()));
  const settled = await poll(host, SYNC_DEADLINE_MS, async () => {
    const told = await askMaster();
    const own = await countPins(cluster);
    last.sync = { own, ...told };
    if (own !== null && isEnough(own, told, restOf(own))) return true;
    tell.progress(progressOf(last.sync, age()));
    await host.clock.wait(900);
    return null;
  });
  if (settled === true && !hasMore(last.sync)) tell.note(resultOf(last.sync, age()));
  else tell.warning(warningOf(last.sync, age()));
}

/** Asks now and then; a count that was told once stays where the master can't be asked any more. */
async function openAsker(
  host: HostReader,
  context: StorageContext,
  trusted: readonly string[],
): Promise<() => Promise<MasterCounts>> {
  const never = (unknown: string) => () => Promise.resolve({ master: { unknown }, before: null });
  if (context.naming === null) return never("--no-register: it was not asked");
  const url = (await readValues(host, context))("STORAGE_API_URL");
  if (url === undefined) return never("STORAGE_API_URL is not set");
  let known: MasterCounts | null = null;
  let askedMs = 0;
  return async () => {
    if (known !== null && host.clock.now().getTime() - askedMs < ASK_EVERY_MS) return known;
    const answer = await askMasterCount(host, url, trusted);
    askedMs = host.clock.now().getTime();
    const before = known !== null && "pins" in known.master ? known.master.pins : null;
    if (known === null || "pins" in answer || before === null) known = { master: answer, before };
    return known;
  };
}

/** Makes a function that is given every count, and tells whether it has stopped changing. */
async function openRest(host: HostReader, isNewMember: boolean): Promise<(count: number) => Rest> {
  const container = await host.docker.container(STORAGE_NAMES.cluster);
  const begunMs = host.clock.now().getTime();
  const startedMs = isNewMember ? begunMs : Date.parse(container?.startedAt ?? "");
  const isOld = begunMs - startedMs > FIRST_NEWS_MS;
  const last = { count: 0, changedMs: begunMs };
  return (count) => {
    const nowMs = host.clock.now().getTime();
    if (count !== last.count) {
      last.count = count;
      last.changedMs = nowMs;
    }
    const isQuiet = nowMs - last.changedMs >= QUIET_MS;
    return {
      likely: isOld || (count > 0 ? isQuiet : nowMs - startedMs >= FIRST_NEWS_MS),
      surely: isQuiet && nowMs - begunMs >= FIRST_NEWS_MS,
    };
  };
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

/** What the steps of a storage node are made from. */
export interface StorageContext extends NodeContext {
  readonly layout: StorageLayout;
  /** Opens a cluster peer's REST API by its multiaddr. */
  readonly openCluster: (endpoint: string) => ClusterReader;
  /** Opens a master's directory of names at its STORAGE_API_URL. Null: the node's name is not reserved (`--no-register`). */
  readonly naming: ((storageApiUrl: string) => NodesClient) | null;
  /** Tells how far a long wait is, and what came of it. */
  readonly tell: {
    progress(line: string): void;
    note(line: string): void;
    warning(text: string): void;
  };
}

/** The node's own ipfs-cluster, as compose/storage-cluster.yml binds it. */
export const OWN_CLUSTER = "/ip4/127.0.0.1/tcp/9094";

/** A storage node keeps no data that a secret of its `.env` was used for. */
export const NO_SECRET_DATA: DataGuard = {
  findLiveData: () => Promise.resolve(null),
  countDependents: () => Promise.resolve(null),
  check: () => Promise.resolve(null),
};
