import type { Project } from "../../docker/compose-project.ts";
import { surveyNames } from "../../docker/name-conflicts.ts";
import { containers, imagesToPull, waitUntilItWorks } from "../../docker/containers.ts";
import type { AnyStep } from "../../engine/step.ts";
import { isAdopted } from "../../docker/kept-service.ts";
import { countKuboPeers } from "../../federation/sync-counts.ts";
import type { HostReader } from "../../host.ts";
import { readValues } from "../../settings/context.ts";
import { NAMES, STORAGE_NAMES } from "../../settings/layout.ts";
import { ownClusterTarget, type StorageContext } from "../../federation/storage-context.ts";

const SETTLED_MS = 60_000;
const ID = "http://127.0.0.1:9094/id";

/** ipfs-cluster of a storage node. It follows the masters' pinset. */
export function clusterFollower(context: StorageContext, project: Project): AnyStep {
  const { cluster: container, clusterVolume: volume } = STORAGE_NAMES;
  const isKept = isAdopted(project.kept?.get("ipfs-cluster"));
  return containers(context, project, {
    id: "cluster-follower",
    title: "ipfs-cluster, a follower",
    touches:
      "Starts `ipfs_cluster` as a follower that trusts only the masters, data on the volume `fula-storage_cluster-data`.",
    desired: () => ({
      services: [{ service: "ipfs-cluster", container }],
      images: imagesToPull(context, ["CLUSTER_IMAGE"]),
    }),
    data: [{ service: "ipfs-cluster", container, volume }],
    survey: (host) => surveyNames(host, { container, volume, unit: NAMES.clusterUnit, isKept }),
    ...(isKept ? {} : { whyRestart }),
    verify: (host, report) => waitUntilItWorks(host, container, () => findFault(host, context), { report }),
  });
}

/**
 * ipfs-cluster gives kubo the addresses of the other kubos only twice: 5 seconds after its start, and 8 seconds after it
 * has joined a master (1.1.6, ipfshttp.go and cluster.go; compose/storage-cluster.yml). If the network is down at both
 * moments and no public network helps, kubo never connects.
 */
async function whyRestart(host: HostReader): Promise<string | null> {
  const [container, peers] = await Promise.all([
    host.docker.container(STORAGE_NAMES.cluster),
    countKuboPeers(host),
  ]);
  const upMs = host.clock.now().getTime() - Date.parse(container?.startedAt ?? "");
  if (peers !== 0 || upMs < SETTLED_MS) return null;
  return "kubo has no peers, and ipfs-cluster gives it their addresses only after a start";
}

async function findFault(host: HostReader, context: StorageContext): Promise<string | null> {
  const { basicAuth } = ownClusterTarget(await readValues(host, context));
  const answer = await host.http.json(ID, {
    timeoutMs: 10_000,
    ...(basicAuth === undefined ? {} : { basicAuth }),
  });
  if (answer?.status !== 200)
    return `${ID} ${answer === null ? "does not answer" : `answers ${answer.status}`}`;
  const error = (answer.body as { ipfs?: { error?: unknown } } | null)?.ipfs?.error;
  return error === undefined || error === "" ? null : `it cannot reach its kubo: ${JSON.stringify(error)}`;
}
