import type { ClusterReader } from "../cluster/client.ts";
import type { HostReader } from "../host.ts";
import { STORAGE_NAMES, type StorageLayout } from "../settings/master-layout.ts";
import type { DataGuard, NodeContext } from "../settings/node-context.ts";

/** Reserves a name with the master, signed with the node's own identity. */
export interface Naming {
  /**
   * Announces the node; again is safe. `identity` is the text of identity.json, which nobody prints. Throws
   * as federation/announce-name.ts does.
   */
  announce(
    identity: string,
    wish: { readonly pool: string; readonly name: string; readonly addresses: readonly string[] },
  ): Promise<void>;
}

/** What the steps of a storage node are made from. */
export interface StorageContext extends NodeContext {
  readonly layout: StorageLayout;
  /** Opens a cluster peer's REST API by its multiaddr. */
  readonly openCluster: (endpoint: string) => ClusterReader;
  /** Null: the node's name is not reserved (`--no-register`). */
  readonly naming: Naming | null;
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

/** The identity that ipfs-cluster has made on its volume; null before its first start. The text holds a private key. */
export async function readIdentity(
  host: HostReader,
): Promise<{ readonly id: string; readonly text: string } | null> {
  const volume = await host.docker.volume(STORAGE_NAMES.clusterVolume);
  const text = volume === null ? null : await host.files.readText(`${volume.mountpoint}/identity.json`);
  if (text === null) return null;
  const id = /"id"\s*:\s*"([^"]+)"/.exec(text)?.[1];
  return id === undefined ? null : { id, text };
}
