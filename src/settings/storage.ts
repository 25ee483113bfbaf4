import { isNodeName } from "./node-name.ts";
import { RULES, SIZE_UNITS } from "./rules.ts";
import { GENERATED_AUTH } from "./secrets.ts";
import type { SettingSpec } from "./settings.ts";

/** Docker's images and logs are on the same disk, and a kubo without free space can't even delete. */
export const DEFAULT_DISK_RESERVE = "1GB";

/** The services of both kinds of node have it. */
export const LOG_LEVEL: SettingSpec = {
  key: "LOG_LEVEL",
  about:
    "the least serious lines that the services log: debug (health checks, too), info (one line per request), warn or error",
  rule: RULES.logLevel,
  byDefault: "info",
};

/**
 * The settings of a storage node, in the order of `.env`. The keys have their upstream names
 * (functionland/fula-ota, join-as-storage-node.sh and docker/fula-ingest).
 */
export const STORAGE_SETTINGS: readonly SettingSpec[] = [
  { key: "CLUSTERNAME", about: "the name of the pool, the same on every node of the pool", rule: RULES.name },
  {
    key: "CLUSTER_PEERNAME",
    about: "the name of this node, in the cluster and registered with the master",
    rule: RULES.nodeName,
    bound: true,
  },
  {
    key: "CLUSTER_SECRET",
    about:
      "64 hex digits, the same on every node of the pool; if not set, derived from CLUSTERNAME as upstream does, and so not secret",
    rule: RULES.hex64,
    bound: true,
    secret: true,
  },
  {
    key: "CLUSTER_BASIC_AUTH",
    about: "user:password of this node's ipfs-cluster REST API on 127.0.0.1",
    rule: RULES.credentials,
    secret: true,
    generated: GENERATED_AUTH,
  },
  {
    key: "MASTER_CLUSTER_PEERIDS",
    about: "cluster peer ids of the masters; this node trusts only these",
    rule: RULES.peerIds,
  },
  {
    key: "MASTER_CLUSTER_BOOTSTRAP",
    about: "cluster addresses of the masters, separated by commas",
    rule: RULES.peerMultiaddrs,
  },
  {
    key: "STORAGE_API_URL",
    about: "URL of the master's storage API, which decides who may upload",
    rule: RULES.apiUrl,
  },
  {
    key: "STORAGE_API_CA",
    about:
      "the certificates of a private CA that this node trusts for STORAGE_API_URL, and for nothing else; comes with the invite",
    rule: RULES.certificates,
  },
  {
    key: "POOL_API",
    about: "URL of the pool API, which publishes the masters; if it is set here, every join asks it",
    rule: RULES.url,
  },
  {
    key: "NODE_INVITE",
    about: "the part of this node's invite that proves to the master that it may register its name",
    rule: RULES.inviteProof,
    secret: true,
  },
  {
    key: "KUBO_STORAGE_MAX",
    about: "size of this node's storage at which uploads are refused; pins of the cluster are not refused",
    rule: RULES.storageSize,
    bound: true,
  },
  {
    key: "DISK_RESERVE",
    about: "free space of the disk at which uploads are refused, whatever uses the disk",
    rule: RULES.storageSize,
    byDefault: DEFAULT_DISK_RESERVE,
  },
  {
    key: "KUBO_PRIVATE_NETWORK",
    about:
      "set to true if the pool's nodes connect over private addresses; otherwise kubo neither dials nor announces them",
    rule: RULES.flag,
    byDefault: "false",
  },
  { key: "INGEST_PORT", about: "port of the verified ingest", rule: RULES.port, byDefault: "3601" },
  {
    key: "INGEST_BIND",
    about: "address that the ingest listens on; `::` is all, IPv4 and IPv6; use 127.0.0.1 behind a proxy",
    rule: RULES.bindAddress,
    byDefault: "::",
  },
  {
    key: "INGEST_QUOTA_MODE",
    about: "what to do with an upload if the storage API does not answer: strict refuses it, open accepts it",
    rule: RULES.quotaMode,
    byDefault: "strict",
  },
  {
    key: "INGEST_MAX_BLOCK_BYTES",
    about: "maximum size of an uploaded block, in bytes",
    rule: RULES.blockBytes,
    byDefault: "2097152",
  },
  {
    key: "INGEST_MAX_CONCURRENT",
    about: "maximum number of uploads at the same time",
    rule: RULES.concurrency,
    byDefault: "32",
  },
  {
    key: "INGEST_METRICS_PORT",
    about: "port of the ingest's metrics for Prometheus on 127.0.0.1",
    rule: RULES.port,
    byDefault: "13601",
  },
  LOG_LEVEL,
  { key: "KUBO_IMAGE", about: "image of kubo", rule: RULES.image, byDefault: "ipfs/kubo:v0.42.0" },
  {
    key: "CLUSTER_IMAGE",
    about: "image of ipfs-cluster",
    rule: RULES.image,
    byDefault: "ipfs/ipfs-cluster:v1.1.6",
  },
  {
    key: "NODE_BASE_IMAGE",
    about: "base image of the service image",
    rule: RULES.image,
    byDefault: "node:26-trixie-slim",
  },
];

/** Settings that a storage node needs and that have no default. */
export const STORAGE_REQUIRED = [
  "CLUSTERNAME",
  "MASTER_CLUSTER_PEERIDS",
  "MASTER_CLUSTER_BOOTSTRAP",
  "STORAGE_API_URL",
] as const;

/** Turns a host name into a node name; null if no part of it can be used. */
export function nodeNameOf(hostname: string): string | null {
  const name = hostname
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .slice(0, 64)
    .replaceAll(/^-+|-+$/g, "");
  return isNodeName(name) ? name : null;
}

/** The share of the free disk that a new node offers by default. */
const OFFERED_SHARE = 0.8;

/** The default storage size for this many free bytes: four fifths, in whole GB, or in MB on a small disk. */
export function offeredSize(freeBytes: number): string {
  const offered = freeBytes * OFFERED_SHARE;
  return offered >= SIZE_UNITS.GB
    ? `${Math.floor(offered / SIZE_UNITS.GB)}GB`
    : `${Math.max(1, Math.floor(offered / SIZE_UNITS.MB))}MB`;
}
