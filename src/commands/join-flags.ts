/** The flags of join-as-master as commander gives them. */
export interface JoinFlags {
  readonly dryRun: boolean;
  readonly yes: boolean;
  readonly baseDir?: string;
  readonly set: readonly string[];
  readonly adopt: readonly string[];
  readonly ignore: readonly string[];
  readonly images?: string;
  readonly provisionWriter: boolean;
}
