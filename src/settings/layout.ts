/** The paths of a storage node. All are absolute. */
export interface StorageLayout {
  readonly baseDir: string;
  readonly envFile: string;
  readonly composeFile: string;
  readonly journal: string;
  readonly cliDir: string;
  /** The symbolic link to the installed version. Cron and people use it. */
  readonly cliCurrent: string;
  /** How adopted containers run. Its files contain secrets. */
  readonly adoptedDir: string;
  /** Where a storage node last announced its name. */
  readonly announced: string;
  /** The images that a run is writing. It exists only meanwhile. */
  readonly unfinishedImages: string;
}

/** The paths of a master. All are absolute. */
export interface MasterLayout extends StorageLayout {
  readonly signingKey: string;
  /** The public key, to verify snapshots on another machine. */
  readonly verifyingKey: string;
  readonly snapshotsDir: string;
  /** The end of the chain of snapshots, outside of their directory. */
  readonly snapshotMemory: string;
  /** The old and the new value of a secret while `secret rotate` changes it. */
  readonly rotation: string;
  /** One line for each alarm. The name is upstream's. */
  readonly alertLog: string;
  /** The output of the cron jobs. */
  readonly snapshotLog: string;
  readonly sweepLog: string;
  readonly drillLog: string;
  readonly backupLog: string;
  /** The progress files of restores. */
  readonly restoreDir: string;
  readonly snapshotHeartbeat: string;
  readonly sweepHeartbeat: string;
  readonly backupHeartbeat: string;
  /** How each drill went when it last ran. */
  readonly drillRecord: string;
  /** The last restore of a dump that was proven. */
  readonly restoreRecord: string;
  /** The backups that were read back whole, and what they were then. */
  readonly backupRecord: string;
  /** Every storage node that was seen at least once. */
  readonly knownNodes: string;
  /** What the edge's container reads. */
  readonly edgeDir: string;
  /** The CA of the database's certificate, with its key. */
  readonly postgresTlsDir: string;
  /** The address and the CA of the edge that invites contain. */
  readonly edgeKnown: string;
  /** A backup that is unpacked, while the machine becomes its master. It exists only meanwhile. */
  readonly fromBackupDir: string;
}

/** The files in the directory that Postgres reads for its TLS: `server` in `postgresTlsDir`. */
export const POSTGRES_TLS_FILES = {
  directory: "server",
  certificate: "server.pem",
  key: "server.key",
  rules: "pg_hba.conf",
} as const;

/** The default base directory of a master (upstream's). */
export const MASTER_BASE_DIR = "/opt/fula-master";

/** The default base directory of a storage node (upstream's). */
export const STORAGE_BASE_DIR = "/opt/fula-storage";

/** Upstream's names of containers, projects, units and volumes. */
export const NAMES = {
  masterProject: "fula-master",
  writerProject: "fula-writer",
  postgres: "postgres-pinning",
  pinningApi: "fula-pinning-api",
  webui: "fula-pinning-webui",
  gateway: "fula-gateway-1",
  updater: "fula-updater",
  edge: "fula-edge",
  kubo: "ipfs_host",
  cluster: "ipfs_cluster",
  kuboUnit: "ipfs.service",
  clusterUnit: "ipfscluster.service",
  postgresVolume: "fula-master_pgdata",
  edgeVolume: "fula-master_edge-data",
} as const;

/**
 * The user of the containers that fula-node creates (`user:` in compose/*.yml). Debian gives 60000 to 64999 neither to
 * people nor, without a list, to packages (policy 9.2.2), and that list has nothing below 63000; systemd leaves 60706 to
 * 61183 alone (UIDS-GIDS). Numbers above 65535 do not exist in most user namespaces, such as those of LXC.
 */
export const CONTAINER_USER = { uid: 61_077, gid: 61_077 } as const;

/** Upstream's names of a storage node's project, containers and volumes. */
export const STORAGE_NAMES = {
  project: "fula-storage",
  kubo: "ipfs_host",
  cluster: "ipfs_cluster",
  ingest: "fula-ingest",
  kuboVolume: "fula-storage_kubo-data",
  clusterVolume: "fula-storage_cluster-data",
} as const;

/** The database in an unpacked backup: all parts of it in one file, as pg_restore reads it. */
export const DUMP_FILE = "database.dump";
/** Beside it once the database of this machine is the one of the backup. */
export const DUMP_IS_RESTORED = "database.txt";

/** The marker file next to the data of a writer that `--adopt writer` took over. fula-node never removes the file or the data. */
export const TAKEN_OVER = "taken-over.txt";

/** Below the directory of a writer that fula-node created: its peer id and its secret key. */
export const WRITER_IDENTITY = "ipfs-cluster/identity.json";

/** The cron files, with upstream's names where it has one. That of the drills is there only after `drill --schedule`, that of backups only with BACKUP_DIR. */
export const CRON_FILES = {
  snapshot: "/etc/cron.d/fula-pinset-snapshot",
  sweep: "/etc/cron.d/fula-replication-sweep",
  drill: "/etc/cron.d/fula-drill",
  backup: "/etc/cron.d/fula-backup",
} as const;

/** How often cron starts each of them, in milliseconds. */
export const CRON_PERIODS_MS = {
  snapshot: 6 * 3_600_000,
  sweep: 30 * 60_000,
  drill: 7 * 24 * 3_600_000,
  backup: 24 * 3_600_000,
} as const;

/** The label, and its value, on everything in Docker that fula-node created. */
export const OWNER_LABEL = { key: "land.fx.fula-node.owner", value: "fula-node" } as const;

/** The label on a container or volume that a drill made; its value is the drill. */
export const DRILL_LABEL = "land.fx.fula-node.drill";

/** The name of a drill's directory in the base directory, and of its pin. */
export const DRILL_DIRECTORY = /^fula-drill-(?:snapshot|sweep)-[0-9a-f]{16}$/;

/** True if a container, volume, network or image has our label. */
export function isOurs(thing: { readonly labels: Readonly<Record<string, string>> }): boolean {
  return thing.labels[OWNER_LABEL.key] === OWNER_LABEL.value;
}

/** Returns the paths of a master with this base directory. */
export function masterLayout(baseDir: string): MasterLayout {
  return {
    ...storageLayout(baseDir),
    signingKey: `${baseDir}/snapshot-ed25519.pem`,
    verifyingKey: `${baseDir}/snapshot-ed25519.pub.pem`,
    snapshotsDir: `${baseDir}/snapshots`,
    snapshotMemory: `${baseDir}/state/snapshot-chain.json`,
    rotation: `${baseDir}/rotation.json`,
    alertLog: `${baseDir}/replication-alerts.log`,
    snapshotLog: `${baseDir}/snapshot.log`,
    sweepLog: `${baseDir}/sweep.log`,
    drillLog: `${baseDir}/drill.log`,
    backupLog: `${baseDir}/backup.log`,
    restoreDir: `${baseDir}/restore`,
    snapshotHeartbeat: `${baseDir}/heartbeats/snapshot.json`,
    sweepHeartbeat: `${baseDir}/heartbeats/sweep.json`,
    backupHeartbeat: `${baseDir}/heartbeats/backup.json`,
    drillRecord: `${baseDir}/state/drills.json`,
    restoreRecord: `${baseDir}/state/restore-proof.json`,
    backupRecord: `${baseDir}/state/backups.json`,
    knownNodes: `${baseDir}/known-nodes.json`,
    edgeDir: `${baseDir}/edge`,
    postgresTlsDir: `${baseDir}/postgres-tls`,
    edgeKnown: `${baseDir}/edge-known.json`,
    fromBackupDir: `${baseDir}/from-backup`,
  };
}

/** Returns the paths of a storage node with this base directory. */
export function storageLayout(baseDir: string): StorageLayout {
  return {
    baseDir,
    envFile: `${baseDir}/.env`,
    composeFile: `${baseDir}/docker-compose.yml`,
    journal: `${baseDir}/journal.ndjson`,
    cliDir: `${baseDir}/cli`,
    cliCurrent: `${baseDir}/cli/current`,
    adoptedDir: `${baseDir}/adopted`,
    announced: `${baseDir}/announced.json`,
    unfinishedImages: `${baseDir}/unfinished-images.txt`,
  };
}

/** A path that root's programs read or run, so that root alone may change it. */
export interface GuardedPath {
  readonly path: string;
  /** True if everything below it counts too. */
  readonly tree?: boolean;
}

/** What fula-node makes on a storage node, and root alone may change. `.env` is judged before anything is read from it. */
export function guardedOnStorageNode({
  baseDir,
  cliDir,
  composeFile,
  journal,
}: StorageLayout): readonly GuardedPath[] {
  return [{ path: baseDir }, { path: cliDir, tree: true }, { path: composeFile }, { path: journal }];
}

/** The same on a master, without its writer. */
export function guardedOnMaster(layout: MasterLayout): readonly GuardedPath[] {
  const { signingKey, verifyingKey, snapshotsDir, snapshotHeartbeat, restoreDir, knownNodes } = layout;
  const { edgeDir, postgresTlsDir } = layout;
  const heartbeats = snapshotHeartbeat.replace(/\/[^/]*$/, "");
  return [
    ...guardedOnStorageNode(layout),
    ...[signingKey, verifyingKey, snapshotsDir, heartbeats, restoreDir, knownNodes, edgeDir].map((path) => ({
      path,
    })),
    { path: postgresTlsDir, tree: true },
  ];
}

/** The locks of one node. A run that needs several takes them in this order. */
export function lockNames(baseDir: string) {
  return {
    /** Join, repair, leave, drill. */
    node: baseDir,
    /** The same for every base directory: names of containers, ports and cron files are there once. */
    machine: "this machine",
    snapshot: `${baseDir}/snapshot`,
    sweep: `${baseDir}/sweep`,
    restore: `${baseDir}/restore`,
  } as const;
}

/** The flag that a command needs for a node in this directory: ` --base-dir DIR`, or nothing for the default one. */
export function baseDirFlag(baseDir: string, byDefault = MASTER_BASE_DIR): string {
  return baseDir === byDefault ? "" : ` --base-dir ${baseDir}`;
}

/** The package's files that are installed and copied into the service image: those that `npm pack` ships. */
export const PACKAGE_ENTRIES = [
  "package.json",
  "bin",
  "dist",
  "compose",
  "migrations",
  "docs",
  "LICENSE",
  "README.md",
  "CHANGELOG.md",
  "SECURITY.md",
];
