import type { Project } from "../../docker/compose-project.ts";
import { containers, imagesToPull, surveyNames, waitUntilItWorks } from "../../docker/containers.ts";
import type { AnyStep } from "../../engine/step.ts";
import type { StorageContext } from "../../federation/membership.ts";
import { countKuboPeers } from "../../federation/sync-counts.ts";
import type { HostReader } from "../../host.ts";
import { NAMES, STORAGE_NAMES } from "../../settings/layout.ts";

const SETTLED_MS = 60_000;
const ID = "http://127.0.0.1:9094/id";

/** ipfs-cluster of a storage node: it follows the masters' pinset. */
export function clusterFollower(context: StorageContext, project: Project): AnyStep {
  const { cluster: container, clusterVolume: volume } = STORAGE_NAMES;
  return containers(context, project, {
    id: "cluster-follower",
    title: "ipfs-cluster, a follower",
    touches:
      "Brings `ipfs_cluster` up as a follower that obeys the masters only, data on the volume `fula-storage_cluster-data`.",
    desired: () => ({
      services: [{ service: "ipfs-cluster", container }],
      images: imagesToPull(context, ["CLUSTER_IMAGE"]),
    }),
    survey: (host) => surveyNames(host, { container, volume, unit: NAMES.clusterUnit }),
    whyRestart,
    verify: (host) => waitUntilItWorks(host, container, () => findFault(host)),
  });
}

/**
 * ipfs-cluster tells kubo where the others' kubos are twice, 15 and 30 seconds after its start (1.1.6, cluster.go
 * and ipfshttp.go). Where the network was cut just then, and no public one helps, kubo stays alone for good.
 */
async function whyRestart(host: HostReader): Promise<string | null> {
  const [container, peers] = await Promise.all([
    host.docker.container(STORAGE_NAMES.cluster),
    countKuboPeers(host),
  ]);
  const upMs = host.clock.now().getTime() - Date.parse(container?.startedAt ?? "");
  if (peers !== 0 || upMs < SETTLED_MS) return null;
  return "kubo is connected to no other one, since ipfs-cluster names the others to it only after a start";
}

async function findFault(host: HostReader): Promise<string | null> {
  const answer = await host.http.json(ID, { timeoutMs: 10_000 });
  if (answer?.status !== 200)
    return `${ID} ${answer === null ? "does not answer" : `answers ${answer.status}`}`;
  const error = (answer.body as { ipfs?: { error?: unknown } } | null)?.ipfs?.error;
  return error === undefined || error === "" ? null : `it does not reach its kubo: ${JSON.stringify(error)}`;
}
