const BY_LEAVE = /"kind":"(?:remove|release|retract)-/;

/**
 * True where a journal says that a leave, cut short since, took the last things out of a directory: the
 * directory is empty by our hand then. What a join wrote afterwards ends that.
 */
export function wasEmptiedByLeave(journal: string, directory: string): boolean {
  const inside = `"name":${JSON.stringify(`${directory}/`).slice(0, -1)}`;
  // A line that a crash cut short tells nothing.
  const lines = journal.split("\n").filter((line) => line.endsWith("}"));
  const before = lines.findLastIndex((line) => !BY_LEAVE.test(line));
  return lines
    .slice(before + 1)
    .some((line) => line.includes('"kind":"remove-path"') && line.includes(inside));
}
