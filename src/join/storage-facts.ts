import type { ClusterReader } from "../cluster/client.ts";
import { OperatorError } from "../errors.ts";
import { lookUpName } from "../federation/announce-name.ts";
import { readNodeIdentity } from "../federation/node-identity.ts";
import { OWN_CLUSTER } from "../federation/storage-context.ts";
import { askMasterCount, countKuboPeers, countPins } from "../federation/sync-counts.ts";
import type { Values } from "../settings/node-context.ts";
import type { World } from "../world.ts";
import { type NodeFacts, UNREADABLE_STATUS } from "./node-report.ts";

/** A person waits: what can't be told by then is told to be unknown. */
const DEADLINE_MS = 30_000;
const TIMEOUT_MS = 10_000;
const REPO_STAT = "http://127.0.0.1:5001/api/v0/repo/stat?size-only=true";
const UNAUTHORIZED = 401;

/** Looks at what a storage node does. What does not answer is told as unknown; nothing is changed. */
export async function lookAtNode(world: World, values: Values): Promise<NodeFacts> {
  const { host } = world;
  const trusted = (values("MASTER_CLUSTER_PEERIDS") ?? "").split(",");
  const url = (values("STORAGE_API_URL") ?? "").replace(/\/+$/, "");
  const cluster = world.openCluster({ endpoint: OWN_CLUSTER, signal: AbortSignal.timeout(DEADLINE_MS) });
  try {
    const [identity, masters, known, statuses, master, kuboPeers, fault, name, disk] = await Promise.all([
      readNodeIdentity(host),
      lookAtMasters(cluster, trusted),
      countPins(cluster),
      countStatuses(cluster),
      lookAtMasterCount(world, url, trusted),
      countKuboPeers(host),
      whyNoGate(world, url),
      lookAtName(world, url, values("CLUSTER_PEERNAME") ?? ""),
      lookAtDisk(world),
    ]);
    return {
      pool: values("CLUSTERNAME") ?? "an unknown pool",
      peerId: identity?.peerId ?? null,
      masters,
      trusted,
      kuboPeers,
      pins: { known, statuses, master },
      ingest: {
        address: `${values("INGEST_BIND") ?? ""}:${values("INGEST_PORT") ?? ""}`,
        maxBlockBytes: Number(values("INGEST_MAX_BLOCK_BYTES")),
        mode: values("INGEST_QUOTA_MODE") ?? "strict",
        gate: { url, fault },
      },
      name,
      disk,
    };
  } finally {
    cluster.close();
  }
}

async function lookAtMasters(
  cluster: ClusterReader,
  trusted: readonly string[],
): Promise<NodeFacts["masters"]> {
  return orNull(async () => {
    const [{ id: own }, peers] = await Promise.all([cluster.identity(), cluster.peers()]);
    const byId = new Map(peers.filter(({ error }) => error === "").map((peer) => [peer.id, peer]));
    return trusted.map((id) => {
      const peer = byId.get(id);
      return {
        id,
        name: peer?.peername ?? null,
        countsThisNode: peer?.clusterPeers.includes(own) ?? false,
      };
    });
  });
}

async function lookAtMasterCount(
  { host }: World,
  url: string,
  trusted: readonly string[],
): Promise<NodeFacts["pins"]["master"]> {
  const master = await askMasterCount(host, url, trusted);
  if ("unknown" in master) return master;
  return { pins: master.pins, ageMs: host.clock.now().getTime() - master.countedAt.getTime() };
}

/** Counts this node's pins by their status, in constant memory. */
async function countStatuses(cluster: ClusterReader): Promise<Readonly<Record<string, number>> | null> {
  const counts: Record<string, number> = {};
  return orNull(async () => {
    await cluster.list("own-status", (block) => {
      for (const line of block.toString("utf8").split("\n")) {
        if (line === "") continue;
        const status = statusOf(line);
        counts[status] = (counts[status] ?? 0) + 1;
      }
    });
    return counts;
  });
}

/** ipfs-cluster's word for one pin's status, from its line in the list. */
function statusOf(line: string): string {
  const peers = /"peer_map":\{"[^"]+":\{.*?"status":"([a-z_]+)"/.exec(line);
  return peers?.[1] ?? UNREADABLE_STATUS;
}

/** An ingest asks with a client's key; without one the answer is 401, from whatever is the storage API. */
async function whyNoGate({ host }: World, url: string): Promise<string | null> {
  const answer = await orNull(() => host.http.json(`${url}/api/v1/storage`, { timeoutMs: TIMEOUT_MS }));
  if (answer === null) return "does not answer";
  return answer.status === UNAUTHORIZED ? null : `answers ${answer.status}`;
}

async function lookAtName({ host }: World, url: string, name: string): Promise<NodeFacts["name"]> {
  try {
    const entry = await lookUpName(host.http, url, name, "--no-register");
    return { name, holder: entry?.peerId ?? null };
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    return { unknown: `${name}; ${thrown.what}` };
  }
}

async function lookAtDisk({ host }: World): Promise<NodeFacts["disk"]> {
  const answer = await orNull(() => host.http.json(REPO_STAT, { method: "POST", timeoutMs: TIMEOUT_MS }));
  const { RepoSize, StorageMax } = (answer?.body ?? {}) as {
    readonly RepoSize?: unknown;
    readonly StorageMax?: unknown;
  };
  return typeof RepoSize === "number" && typeof StorageMax === "number"
    ? { usedBytes: RepoSize, limitBytes: StorageMax }
    : null;
}

async function orNull<T>(look: () => Promise<T>): Promise<T | null> {
  try {
    return await look();
  } catch (thrown) {
    if (thrown instanceof OperatorError) return null;
    throw thrown;
  }
}
