import type { ClusterReader, PeerIdentity } from "../../cluster/client.ts";
import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import { recoverOwnPins } from "../../federation/own-pins.ts";
import {
  ageOfCount,
  hasMoreThanMaster,
  isSynced,
  type MasterCounts,
  progressOf,
  resultOf,
  type Stability,
  type Sync,
  SYNC_DEADLINE_MS,
  warningOf,
} from "../../federation/pinset-sync.ts";
import { ownClusterTarget, storageApiCaOf, type StorageContext } from "../../federation/storage-context.ts";
import { askMasterCount, connectKubo, countKuboPeers, countPins } from "../../federation/sync-counts.ts";
import type { HostReader } from "../../host.ts";
import { trusting } from "../../machine/http.ts";
import { poll, readValues } from "../../settings/context.ts";
import { STORAGE_NAMES } from "../../settings/layout.ts";
import { countOf } from "../../units.ts";

/** A node sends a ping every 8 s (CLUSTER_MONITORPINGINTERVAL), a master every 15 s. Each counts the peers that sent one. */
const MEMBER_DEADLINE_MS = 120_000;
/**
 * ipfs-cluster connects this kubo to the other kubos, but tries their addresses one after another: seconds for each one
 * that leads nowhere. So the join gives kubo all addresses of a master at once.
 */
const KUBO_DEADLINE_MS = 60_000;
/**
 * Masters broadcast their latest state at an interval (CLUSTER_CRDT_REBROADCASTINTERVAL). Until the first broadcast, this
 * node knows no pins. Masters that fula-node created broadcast every 10 seconds; an adopted one has ipfs-cluster's
 * default of a minute.
 */
const FIRST_UPDATE_MS = 75_000;
const STABLE_AFTER_MS = 6_000;
/** Ask again regularly: a master's pinset changes while this node syncs, and pins that it removed never arrive. */
const ASK_EVERY_MS = 10_000;

const PINS_DEADLINE_MS = 60_000;

/** Membership in the pool. ipfs-cluster establishes it, so this step only checks it. */
export function membership(context: StorageContext): StepSpec<null, Change> {
  return {
    id: "membership",
    title: "membership in the pool",
    touches:
      "Writes nothing. Waits until a master lists this node as a peer, and until this node's pinset has as many pins as the master's. Connects kubo to the masters' kubos, if it is connected to none. Makes ipfs-cluster pin again what older removals took away.",
    probe: (): Promise<Finding<null>> =>
      Promise.resolve({
        state: "ours",
        seen: null,
        evidence: { "asked when all is up": "own id, a master's peers, the pinset" },
      }),
    plan: () => [],
    apply: () => Promise.resolve(),

    async verify(host) {
      const values = await readValues(host, context);
      const trusted = (values("MASTER_CLUSTER_PEERIDS") ?? "").split(",");
      const { openCluster, report } = context;
      const cluster = openCluster(ownClusterTarget(values));
      const { id } = await cluster.identity();
      if (trusted.includes(id)) throw trustsItself(id);
      const last: { peers: readonly PeerIdentity[]; attempts: number } = { peers: [], attempts: 0 };
      const leftMs = createCountdown(host, MEMBER_DEADLINE_MS);
      const isMember = await poll(host, MEMBER_DEADLINE_MS, async () => {
        last.peers = await peersOf(cluster);
        last.attempts += 1;
        const masters = last.peers.filter((peer) => trusted.includes(peer.id) && peer.error === "");
        if (masters.some(({ clusterPeers }) => clusterPeers.includes(id))) return true;
        report.progress(
          masters.length === 0
            ? "waiting for a connection to a master"
            : "waiting for a master to list this node as a peer",
          leftMs(),
        );
        await host.clock.wait(900);
        return null;
      });
      if (isMember !== true) throw notAMember(id, trusted, last.peers);
      const isSettled = await watchPinset(host, context, {
        trusted,
        cluster,
        isNewMember: last.attempts > 1,
      });
      await watchKubo(host, context, { trusted, cluster });
      if (isSettled) await watchPins(host, context, cluster);
    },
  };
}

/** Creates a function that returns how much of a wait is left. */
function createCountdown({ clock }: HostReader, durationMs: number): () => number {
  const untilMs = clock.monotonicMs() + durationMs;
  return () => Math.max(0, untilMs - clock.monotonicMs());
}

/** Empty while the peer can't reach others: it may have just started, or the network may be down. */
async function peersOf(cluster: ClusterReader): Promise<readonly PeerIdentity[]> {
  try {
    return await cluster.peers();
  } catch (thrown) {
    if (thrown instanceof OperatorError) return [];
    throw thrown;
  }
}

/**
 * Waits until this node's pinset has as many pins as the master's. If no master reports its count, waits until the
 * pinset stops growing; on a node that has been up for long, one count is then enough. A passed deadline, or a pinset
 * that stays larger than the master's, is only a warning: syncing continues in the background. Returns false then.
 */
async function watchPinset(
  host: HostReader,
  context: StorageContext,
  options: {
    readonly trusted: readonly string[];
    readonly cluster: ClusterReader;
    readonly isNewMember: boolean;
  },
): Promise<boolean> {
  const { trusted, cluster, isNewMember } = options;
  const { report } = context;
  const countMaster = await createMasterCounter(host, context, trusted);
  const stabilityOf = await createStabilityCheck(host, isNewMember);
  const last: { sync: Sync } = { sync: { own: null, master: { unknown: "" }, previousPins: null } };
  const age = () =>
    "pins" in last.sync.master
      ? ageOfCount(host.clock.now().getTime() - last.sync.master.countedAt.getTime())
      : "";
  const hasOneMaster = trusted.length === 1;
  const leftMs = createCountdown(host, SYNC_DEADLINE_MS);
  report.progress(progressOf(last.sync, age()), leftMs());
  const settled = await poll(host, SYNC_DEADLINE_MS, async () => {
    const counts = await countMaster();
    const own = await countPins(cluster);
    last.sync = { own, ...counts };
    const stability = own === null ? null : stabilityOf(own);
    if (own !== null && stability !== null && isSynced(own, counts, { ...stability, hasOneMaster }))
      return true;
    report.progress(
      progressOf(last.sync, age()),
      own === 0 ? (stability?.firstUpdateMs ?? leftMs()) : leftMs(),
    );
    await host.clock.wait(900);
    return null;
  });
  if (settled === true && !hasMoreThanMaster(last.sync)) report.note(resultOf(last.sync, age()));
  else report.warning(warningOf(last.sync, age()));
  return settled === true;
}

/** Asks a master at an interval. If the master stops responding, its last count stays valid. */
async function createMasterCounter(
  host: HostReader,
  context: StorageContext,
  trusted: readonly string[],
): Promise<() => Promise<MasterCounts>> {
  const never = (unknown: string) => () => Promise.resolve({ master: { unknown }, previousPins: null });
  if (context.naming === null) return never("--no-register: the master was not asked");
  const values = await readValues(host, context);
  const url = values("STORAGE_API_URL");
  if (url === undefined) return never("STORAGE_API_URL is not set");
  let known: MasterCounts | null = null;
  let askedMs = -Infinity;
  return async () => {
    if (known !== null && host.clock.monotonicMs() - askedMs < ASK_EVERY_MS) return known;
    const answer = await askMasterCount(trusting(host.http, storageApiCaOf(values)), url, trusted);
    askedMs = host.clock.monotonicMs();
    const previousPins = known !== null && "pins" in known.master ? known.master.pins : null;
    if (known === null || "pins" in answer || previousPins === null) known = { master: answer, previousPins };
    return known;
  };
}

/** Creates a function that receives every count and returns whether the count has stopped changing. */
async function createStabilityCheck(
  host: HostReader,
  isNewMember: boolean,
): Promise<(count: number) => Stability & { readonly firstUpdateMs: number }> {
  const container = await host.docker.container(STORAGE_NAMES.cluster);
  const startMs = host.clock.monotonicMs();
  // Docker gives the start as a date; only this one age is taken from the clock that can be set.
  const upMs = isNewMember ? 0 : host.clock.now().getTime() - Date.parse(container?.startedAt ?? "");
  const isOld = upMs > FIRST_UPDATE_MS;
  const last = { count: 0, changedMs: startMs };
  return (count) => {
    const nowMs = host.clock.monotonicMs();
    if (count !== last.count) {
      last.count = count;
      last.changedMs = nowMs;
    }
    const isStable = nowMs - last.changedMs >= STABLE_AFTER_MS;
    return {
      isLikely: isOld || (count > 0 ? isStable : nowMs - startMs + upMs >= FIRST_UPDATE_MS),
      isCertain: isStable && nowMs - startMs >= FIRST_UPDATE_MS,
      // How long the first update of a master can still take.
      firstUpdateMs: Math.max(0, startMs + FIRST_UPDATE_MS - nowMs),
    };
  };
}

/** A member whose kubo has no peers can't fetch any content. */
async function watchKubo(
  host: HostReader,
  { report }: StorageContext,
  options: { readonly trusted: readonly string[]; readonly cluster: ClusterReader },
): Promise<void> {
  const { trusted, cluster } = options;
  const last: { peers: number | null; why: string | null; tries: number } = {
    peers: null,
    why: null,
    tries: 0,
  };
  const leftMs = createCountdown(host, KUBO_DEADLINE_MS);
  const connected = await poll(host, KUBO_DEADLINE_MS, async () => {
    last.peers = await countKuboPeers(host);
    if (last.peers !== null && last.peers > 0) return true;
    if (last.peers === 0) {
      const masters = (await peersOf(cluster)).filter(
        ({ id, error }) => trusted.includes(id) && error === "",
      );
      const tried = await Promise.all(masters.map((master) => connectKubo(host, master.ipfsAddresses)));
      if (tried.includes(null)) return true;
      last.why = tried[0] ?? null;
    }
    last.tries += 1;
    // Each line differs, so that a log shows that the wait goes on.
    report.progress(
      `waiting for kubo to connect to another node, tried ${countOf(last.tries, "time")}`,
      leftMs(),
    );
    await host.clock.wait(900);
    return null;
  });
  if (connected === true) return;
  if (last.peers === null) {
    throw new OperatorError({
      exit: "unhealthy",
      what: "This node is a member of the pool, but its kubo does not say to which nodes it is connected.",
      remedy: "Look at its log (docker logs ipfs_host), then run again.",
    });
  }
  throw new OperatorError({
    exit: "unhealthy",
    what: "This node is a member of the pool, but its kubo has no connection to another kubo, so no content arrives.",
    ...(last.why === null ? {} : { why: last.why }),
    remedy:
      "If the pool uses private addresses, set KUBO_PRIVATE_NETWORK=true on this node and on the masters. Otherwise check that port 4001 is open. Then run again.",
  });
}

/**
 * Makes ipfs-cluster pin again what kubo lost to an older removal while the pinset arrived, until nothing is missing. What
 * stays missing is only a warning: ipfs-cluster tries again itself.
 */
async function watchPins(
  host: HostReader,
  { report }: StorageContext,
  cluster: Parameters<typeof recoverOwnPins>[0],
): Promise<void> {
  const there = new Set<string>();
  const last: { missing: number | null } = { missing: null };
  const leftMs = createCountdown(host, PINS_DEADLINE_MS);
  const isDone = await poll(host, PINS_DEADLINE_MS, async () => {
    last.missing = await recoverOwnPins(cluster, there);
    if (last.missing === 0) return true;
    const waiting =
      last.missing === null
        ? "waiting for the status of the pins from ipfs-cluster"
        : `${countOf(last.missing, "pin")} removed by an older change, pinning again`;
    report.progress(waiting, leftMs());
    await host.clock.wait(900);
    return null;
  });
  if (isDone === true) return;
  report.warning(
    last.missing === null
      ? "ipfs-cluster does not say which pins are on this node. To look again, use `status`."
      : `${countOf(last.missing, "pin")} of the pinset ${last.missing === 1 ? "is" : "are"} not on this node, and not being fetched. ipfs-cluster tries again every 12 minutes. To look again, use \`status\`.`,
  );
}

function trustsItself(id: string): OperatorError {
  return new OperatorError({
    exit: "unhealthy",
    what: `This node's own cluster peer ${id} is in its list of trusted masters.`,
    why: "A storage node must not trust itself: only masters may change the pinset.",
    remedy: "Remove it from MASTER_CLUSTER_PEERIDS, then run again.",
  });
}

function notAMember(id: string, trusted: readonly string[], peers: readonly PeerIdentity[]): OperatorError {
  const seen = peers.filter((peer) => trusted.includes(peer.id) && peer.error === "");
  const why =
    seen.length === 0
      ? `None of the masters (${trusted.join(", ")}) is connected.`
      : `${seen.map((peer) => peer.peername).join(", ")} is connected, but does not list ${id} as a peer.`;
  return new OperatorError({
    exit: "unhealthy",
    what: "This node is not a member of the pool.",
    why,
    remedy:
      "Check that MASTER_CLUSTER_BOOTSTRAP is reachable from this machine, that port 9096 is open, and that CLUSTER_SECRET is the pool's. Then run again.",
  });
}
