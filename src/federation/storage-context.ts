import type { Cluster, ClusterReader } from "../cluster/client.ts";
import { pemOfCertificates } from "../settings/certificates.ts";
import type { DataGuard, NodeContext, Values } from "../settings/context.ts";
import type { StorageLayout } from "../settings/layout.ts";
import type { NodesClient } from "./announce-name.ts";

/** What the steps of a storage node need. */
export interface StorageContext extends NodeContext {
  readonly layout: StorageLayout;
  /** Creates a client for a cluster peer's REST API. */
  readonly openCluster: (target: OwnClusterTarget) => ClusterReader & Pick<Cluster, "recoverHere">;
  /** Creates a client for a master's node directory at its STORAGE_API_URL. Null: the node's name is not reserved (`--no-register`). */
  readonly naming: ((storageApiUrl: string, ca: string | null) => NodesClient) | null;
  /** Prints the progress of a long wait, and its result. */
  readonly report: {
    progress(line: string, leftMs?: number): void;
    note(line: string): void;
    warning(text: string): void;
  };
}

/** The REST API of the node's own ipfs-cluster, as compose/storage-cluster.yml binds it. */
const OWN_CLUSTER = "/ip4/127.0.0.1/tcp/9094";

/** The endpoint of the node's own ipfs-cluster, as a multiaddr, with its `user:password`. */
export interface OwnClusterTarget {
  readonly endpoint: string;
  readonly basicAuth?: string;
}

/** The node's own ipfs-cluster with the current settings. */
export function ownClusterTarget(values: Values): OwnClusterTarget {
  const basicAuth = values("CLUSTER_BASIC_AUTH");
  return { endpoint: OWN_CLUSTER, ...(basicAuth === undefined ? {} : { basicAuth }) };
}

/** The private CA of the master's storage API as PEM; null if there is none. */
export function storageApiCaOf(values: Values): string | null {
  const value = values("STORAGE_API_CA");
  return value === undefined ? null : pemOfCertificates(value);
}

/** A storage node has no data that depends on a secret in its `.env`. */
export const NO_SECRET_DATA: DataGuard = {
  findLiveData: () => Promise.resolve(null),
  countDependents: () => Promise.resolve(null),
  check: () => Promise.resolve(null),
};
