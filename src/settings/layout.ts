/** Where everything of a storage node lives; all paths are absolute. */
export interface StorageLayout {
  readonly baseDir: string;
  readonly envFile: string;
  readonly composeFile: string;
  readonly journal: string;
  readonly cliDir: string;
  /** The link to the installed version: what cron and people call. */
  readonly cliCurrent: string;
}

/** Where everything of a master lives; all paths are absolute. */
export interface MasterLayout extends StorageLayout {
  readonly signingKey: string;
  /** The public half, for whoever verifies snapshots elsewhere. */
  readonly verifyingKey: string;
  readonly snapshotsDir: string;
  /** One line an alarm; upstream's name. */
  readonly alertLog: string;
  /** What cron's runs print. */
  readonly snapshotLog: string;
  readonly sweepLog: string;
  /** What restores write down of their progress. */
  readonly restoreDir: string;
  readonly snapshotHeartbeat: string;
  readonly sweepHeartbeat: string;
  /** The storage nodes that were ever seen. */
  readonly knownNodes: string;
}

/** The default base directory of a master (upstream's). */
export const MASTER_BASE_DIR = "/opt/fula-master";

/** The default base directory of a storage node (upstream's). */
export const STORAGE_BASE_DIR = "/opt/fula-storage";

/** Names that containers and projects keep from upstream. */
export const NAMES = {
  masterProject: "fula-master",
  writerProject: "fula-writer",
  postgres: "postgres-pinning",
  pinningApi: "fula-pinning-api",
  webui: "fula-pinning-webui",
  gateway: "fula-gateway-1",
  updater: "fula-updater",
  kubo: "ipfs_host",
  cluster: "ipfs_cluster",
  kuboUnit: "ipfs.service",
  clusterUnit: "ipfscluster.service",
  postgresVolume: "fula-master_pgdata",
} as const;

/** Names that a storage node's project, its containers and its volumes keep from upstream. */
export const STORAGE_NAMES = {
  project: "fula-storage",
  kubo: "ipfs_host",
  cluster: "ipfs_cluster",
  ingest: "fula-ingest",
  kuboVolume: "fula-storage_kubo-data",
  clusterVolume: "fula-storage_cluster-data",
} as const;

/** Beside a writer's data, where `--adopt writer` took it over: neither is ours to remove, ever. */
export const TAKEN_OVER = "taken-over.txt";

/** Upstream's names of what cron runs. */
export const CRON_FILES = {
  snapshot: "/etc/cron.d/fula-pinset-snapshot",
  sweep: "/etc/cron.d/fula-replication-sweep",
} as const;

/** The label that says a thing is ours, and its value. */
export const OWNER_LABEL = { key: "land.fx.fula-node.owner", value: "fula-node" } as const;

/** True where a container, volume, network or image carries our label. */
export function isOurs(thing: { readonly labels: Readonly<Record<string, string>> }): boolean {
  return thing.labels[OWNER_LABEL.key] === OWNER_LABEL.value;
}

/** Lays a master out below its base directory. */
export function masterLayout(baseDir: string): MasterLayout {
  return {
    ...storageLayout(baseDir),
    signingKey: `${baseDir}/snapshot-ed25519.pem`,
    verifyingKey: `${baseDir}/snapshot-ed25519.pub.pem`,
    snapshotsDir: `${baseDir}/snapshots`,
    alertLog: `${baseDir}/replication-alerts.log`,
    snapshotLog: `${baseDir}/snapshot.log`,
    sweepLog: `${baseDir}/sweep.log`,
    restoreDir: `${baseDir}/restore`,
    snapshotHeartbeat: `${baseDir}/heartbeats/snapshot.json`,
    sweepHeartbeat: `${baseDir}/heartbeats/sweep.json`,
    knownNodes: `${baseDir}/known-nodes.json`,
  };
}

/** Lays a storage node out below its base directory. */
export function storageLayout(baseDir: string): StorageLayout {
  return {
    baseDir,
    envFile: `${baseDir}/.env`,
    composeFile: `${baseDir}/docker-compose.yml`,
    journal: `${baseDir}/journal.ndjson`,
    cliDir: `${baseDir}/cli`,
    cliCurrent: `${baseDir}/cli/current`,
  };
}

/** What runs of one node exclude each other by: whoever needs several takes them in this order. */
export function lockNames(baseDir: string) {
  return {
    /** Joining, mending, leaving. */
    node: baseDir,
    snapshot: `${baseDir}/snapshot`,
    sweep: `${baseDir}/sweep`,
    restore: `${baseDir}/restore`,
  } as const;
}
