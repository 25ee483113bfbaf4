import type { Recoverable } from "./recovery.ts";
import { STORAGE_NAMES } from "./storage-layout.ts";

/** What a storage node's containers tell of its settings (compose/storage-*.yml, compose/ingest.yml). */
export const STORAGE_RECOVERABLE: readonly Recoverable[] = [
  ...["CLUSTERNAME", "CLUSTER_SECRET", "CLUSTER_PEERNAME"].map((key) => ({
    key,
    container: STORAGE_NAMES.cluster,
  })),
  {
    key: "MASTER_CLUSTER_PEERIDS",
    container: STORAGE_NAMES.cluster,
    knownAs: "CLUSTER_CRDT_TRUSTEDPEERS",
  },
  { key: "MASTER_CLUSTER_BOOTSTRAP", container: STORAGE_NAMES.cluster, knownAs: "CLUSTER_PEERADDRESSES" },
  ...["KUBO_PRIVATE_NETWORK", "KUBO_STORAGE_MAX"].map((key) => ({ key, container: STORAGE_NAMES.kubo })),
  ...["STORAGE_API_URL", "INGEST_QUOTA_MODE", "INGEST_PORT", "INGEST_BIND"].map((key) => ({
    key,
    container: STORAGE_NAMES.ingest,
  })),
];
