import { isNodeName } from "./node-name.ts";
import { RULES, SIZE_UNITS } from "./rules.ts";
import type { SettingSpec } from "./settings.ts";

/**
 * The settings of a storage node, in the order in which `.env` lists them. Keys keep their upstream names
 * (functionland/fula-ota, join-as-storage-node.sh and docker/fula-ingest).
 */
export const STORAGE_SETTINGS: readonly SettingSpec[] = [
  { key: "CLUSTERNAME", about: "the pool's name: every node of a pool has the same", rule: RULES.name },
  {
    key: "CLUSTER_PEERNAME",
    about: "this node's name: its label in the cluster, and reserved with the master",
    rule: RULES.nodeName,
  },
  {
    key: "CLUSTER_SECRET",
    about:
      "64 hex digits shared by the pool; left out: derived from CLUSTERNAME as upstream does, so not secret",
    rule: RULES.hex64,
    secret: true,
  },
  {
    key: "MASTER_CLUSTER_PEERIDS",
    about: "cluster peer ids of the masters: the only ones that this node obeys",
    rule: RULES.peerIds,
  },
  {
    key: "MASTER_CLUSTER_BOOTSTRAP",
    about: "cluster addresses of the masters, separated by commas",
    rule: RULES.peerMultiaddrs,
  },
  { key: "STORAGE_API_URL", about: "the master's storage API: it tells who may upload", rule: RULES.apiUrl },
  {
    key: "POOL_API",
    about: "where the pool's masters are published; asked at every run once it is saved here",
    rule: RULES.url,
  },
  { key: "KUBO_STORAGE_MAX", about: "how much this node stores at most", rule: RULES.storageSize },
  {
    key: "KUBO_PRIVATE_NETWORK",
    about: "true where the pool has private addresses, which kubo otherwise neither dials nor tells",
    rule: RULES.flag,
    byDefault: "false",
  },
  { key: "INGEST_PORT", about: "the port of the verified ingest", rule: RULES.port, byDefault: "3601" },
  {
    key: "INGEST_BIND",
    about: "the address that the ingest listens on; 127.0.0.1 behind a proxy",
    rule: RULES.host,
    byDefault: "0.0.0.0",
  },
  {
    key: "INGEST_QUOTA_MODE",
    about: "without an answer of the storage API: strict refuses, open lets in",
    rule: RULES.quotaMode,
    byDefault: "strict",
  },
  {
    key: "INGEST_MAX_BLOCK_BYTES",
    about: "largest block that is taken",
    rule: RULES.blockBytes,
    byDefault: "2097152",
  },
  {
    key: "INGEST_MAX_CONCURRENT",
    about: "uploads under way at once",
    rule: RULES.concurrency,
    byDefault: "32",
  },
  { key: "KUBO_IMAGE", about: "image of kubo", rule: RULES.image, byDefault: "ipfs/kubo:v0.42.0" },
  {
    key: "CLUSTER_IMAGE",
    about: "image of ipfs-cluster",
    rule: RULES.image,
    byDefault: "ipfs/ipfs-cluster:v1.1.6",
  },
  {
    key: "NODE_BASE_IMAGE",
    about: "image that the service image is built on",
    rule: RULES.image,
    byDefault: "node:26-trixie-slim",
  },
];

/** What a node can't do without, and nobody can make up. */
export const STORAGE_REQUIRED = [
  "CLUSTERNAME",
  "MASTER_CLUSTER_PEERIDS",
  "MASTER_CLUSTER_BOOTSTRAP",
  "STORAGE_API_URL",
] as const;

/** A machine's name made into a node's name; null where nothing of it can be used. */
export function nodeNameOf(hostname: string): string | null {
  const name = hostname
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .slice(0, 64)
    .replaceAll(/^-+|-+$/g, "");
  return isNodeName(name) ? name : null;
}

/** Of the free disk, what a new node offers unless told otherwise. */
const OFFERED_SHARE = 0.8;

/** What a new node offers of so many free bytes: four fifths, in whole GB; in MB on a small disk. */
export function offeredSize(freeBytes: number): string {
  const offered = freeBytes * OFFERED_SHARE;
  return offered >= SIZE_UNITS.GB
    ? `${Math.floor(offered / SIZE_UNITS.GB)}GB`
    : `${Math.max(1, Math.floor(offered / SIZE_UNITS.MB))}MB`;
}
