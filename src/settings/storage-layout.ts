/** Where everything of a storage node lives; all paths are absolute. */
export interface StorageLayout {
  readonly baseDir: string;
  readonly envFile: string;
  readonly composeFile: string;
  readonly journal: string;
  readonly cliDir: string;
  /** The link to the installed version: what people call. */
  readonly cliCurrent: string;
}

/** The default base directory of a storage node (upstream's). */
export const STORAGE_BASE_DIR = "/opt/fula-storage";

/** Names that the project, its containers and its volumes keep from upstream. */
export const STORAGE_NAMES = {
  project: "fula-storage",
  kubo: "ipfs_host",
  cluster: "ipfs_cluster",
  ingest: "fula-ingest",
  kuboVolume: "fula-storage_kubo-data",
  clusterVolume: "fula-storage_cluster-data",
} as const;

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
