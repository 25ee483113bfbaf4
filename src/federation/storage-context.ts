import type { ClusterReader } from "../cluster/client.ts";
import type { StorageLayout } from "../settings/master-layout.ts";
import type { DataGuard, NodeContext } from "../settings/node-context.ts";
import type { NodesClient } from "./announce-name.ts";

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
  doesDataLive: () => Promise.resolve(null),
  countDependents: () => Promise.resolve(null),
  check: () => Promise.resolve(null),
};
