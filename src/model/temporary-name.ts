/** Stands in the name of everything that is being written and not yet in its place: `.NAME.fula-node-tmp.PID.x`. */
export const TEMPORARY_MARK = ".fula-node-tmp.";

/** True for what a killed run left half-written. */
export function isTemporary(name: string): boolean {
  return name.startsWith(".") && name.includes(TEMPORARY_MARK);
}
