import { createHash } from "node:crypto";
import type { WholePin } from "../cluster/pin.ts";
import { DRILL_DIRECTORY } from "../settings/layout.ts";

/** How the name of a drill's pin and directory begins. */
export const DRILL_NAME_START = "fula-drill-";
/** The key of the mark in a pin's metadata. */
export const DRILL_MARK_KEY = "fula-node-drill";
/** No pin of a drill lives longer. ipfs-cluster may unpin it some time after that. */
export const DRILL_LIFE_MS = 3_600_000;

/** What a master (its MASTER_ID) marks this content with. */
export function drillMark(masterId: string, cid: string): string {
  return createHash("sha256").update(`fula-node drill\n${masterId}\n${cid}`).digest("hex");
}

/**
 * The name alone is no mark: whoever may name a pin could have somebody else's content unpinned, or hide from the sweep that it
 * has no copies. The value can't be made without the master's identity, and is of no use for another content.
 */
export function hasDrillMark(masterId: string, { cid, options }: WholePin): boolean {
  return DRILL_DIRECTORY.test(options.name) && options.metadata[DRILL_MARK_KEY] === drillMark(masterId, cid);
}

/** True for the pin of a drill of one of these masters, as long as it expires soon: nothing that is to stay looks like it. */
export async function isPinOfDrill(
  pin: WholePin,
  at: Date,
  readMasterIds: () => Promise<readonly string[]>,
): Promise<boolean> {
  const { name, expireAt, metadata } = pin.options;
  if (!DRILL_DIRECTORY.test(name) || metadata[DRILL_MARK_KEY] === undefined || expireAt === null)
    return false;
  const awayMs = Math.abs(Date.parse(expireAt) - at.getTime());
  if (!(awayMs <= DRILL_LIFE_MS)) return false;
  return (await readMasterIds()).some((id) => hasDrillMark(id, pin));
}
