import type { AnyStep } from "../engine/step.ts";
import { messageOf, OperatorError } from "../errors.ts";
import { NAMES } from "../model/master-layout.ts";
import { STORAGE_NAMES } from "../model/storage-layout.ts";
import { composeService } from "./compose-service.ts";
import type { Project } from "./compose-services.ts";
import { OWN_CLUSTER, type StorageContext } from "./storage-context.ts";

/** ipfs-cluster of a storage node: it follows the masters' pinset. */
export function clusterFollower(context: StorageContext, project: Project): AnyStep {
  return composeService(context, project, {
    id: "cluster-follower",
    title: "ipfs-cluster, a follower",
    touches:
      "Brings `ipfs_cluster` up as a follower that obeys the masters only, data on the volume `fula-storage_cluster-data`.",
    service: "ipfs-cluster",
    container: STORAGE_NAMES.cluster,
    imageKey: "CLUSTER_IMAGE",
    volume: STORAGE_NAMES.clusterVolume,
    unit: NAMES.clusterUnit,
    fault: () => findFault(context),
  });
}

async function findFault(context: StorageContext): Promise<string | null> {
  try {
    const { ipfsError } = await context.openCluster(OWN_CLUSTER).identity();
    return ipfsError === "" ? null : `it does not reach its kubo: ${ipfsError}`;
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    return `its REST API does not answer (${messageOf(thrown)})`;
  }
}
