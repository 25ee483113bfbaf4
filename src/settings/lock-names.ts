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
