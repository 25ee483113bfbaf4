/** The flags that every kind of join has. */
export interface RunFlags {
  readonly dryRun: boolean;
  readonly yes: boolean;
  readonly baseDir?: string;
  readonly set: readonly string[];
  readonly adopt: readonly string[];
  readonly ignore: readonly string[];
  readonly images?: string;
}

/** The flags of join-as-master as commander gives them. */
export interface JoinFlags extends RunFlags {
  readonly provisionWriter: boolean;
}

/** The flags of join-as-storage-node as commander gives them. */
export interface StorageFlags extends RunFlags {
  /** The token, `@FILE`, or `-` for standard input. */
  readonly invite?: string;
  readonly fingerprint?: string;
  readonly acceptPoolChange: boolean;
  readonly allowHttpPool: boolean;
  /** False for `--no-register`. */
  readonly register: boolean;
}
