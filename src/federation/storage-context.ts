import type { DataGuard, NodeContext } from "../settings/context.ts";
import type { StorageLayout } from "../settings/layout.ts";
import type { ClusterReader } from "../cluster/client.ts";
import type { NodesClient } from "./announce-name.ts";

/** What the steps of a storage node need. */
export interface StorageContext extends NodeContext {
  readonly layout: StorageLayout;
  /** Creates a client for a cluster peer's REST API, by its multiaddr. */
  readonly openCluster: (endpoint: string) => ClusterReader;
  /** Creates a client for a master's node directory at its STORAGE_API_URL. Null: the node's name is not reserved (`--no-register`). */
  readonly naming: ((storageApiUrl: string) => NodesClient) | null;
  /** Prints the progress of a long wait, and its result. */
  readonly report: {
    progress(line: string): void;
    note(line: string): void;
    warning(text: string): void;
  };
}

/** The REST API of the node's own ipfs-cluster, as compose/storage-cluster.yml binds it. */
export const OWN_CLUSTER = "/ip4/127.0.0.1/tcp/9094";

/** A storage node has no data that depends on a secret in its `.env`. */
export const NO_SECRET_DATA: DataGuard = {
  findLiveData: () => Promise.resolve(null),
  countDependents: () => Promise.resolve(null),
  check: () => Promise.resolve(null),
};
