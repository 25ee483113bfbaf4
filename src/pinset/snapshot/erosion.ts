import { linesOf, readPinLine } from "../../cluster/pin.ts";
import { OperatorError } from "../../errors.ts";
import type { NumberedCids } from "../spill.ts";
import type { PinsetWorkspace } from "../workspace.ts";
import { type ChainLink, retentionEntry, type SnapshotFault } from "./links.ts";
import { chooseReferences } from "./retention.ts";
import { readSignedBody } from "./verify.ts";

/** How a new pinset compares with the snapshot that it is measured by. */
export interface Erosion {
  /** The name of that snapshot. */
  readonly reference: string;
  /** How many pins it has. */
  readonly from: number;
  /** How many of them the new pinset lacks. */
  readonly removed: number;
}

/** A pinset that was just written. */
interface WrittenPinset {
  readonly digest: string;
  read(takeLines: (lines: Buffer) => void): Promise<void>;
}

/**
 * Counts the pins that a snapshot has and a new pinset lacks, by CID, in constant memory. The snapshot is the one of an
 * unanswered alarm, else the largest. One that does not verify is reported and the next is used. Null: there is none.
 */
export async function measureErosion(
  links: readonly ChainLink[],
  pinset: WrittenPinset,
  deps: { readonly workspace: PinsetWorkspace; readonly reportFault: (fault: SnapshotFault) => void },
): Promise<Erosion | null> {
  const byName = new Map(links.map((link) => [link.name, link]));
  for (const name of chooseReferences(links.map(retentionEntry))) {
    const link = byName.get(name);
    if (link === undefined) continue;
    const { count: from } = link.manifest.pins;
    if (from === 0 || link.manifest.digest.value === pinset.digest)
      return { reference: name, from, removed: 0 };
    try {
      return { reference: name, from, removed: await countRemoved(link, pinset, deps.workspace) };
    } catch (thrown) {
      if (!(thrown instanceof OperatorError) || thrown.exit !== "integrity") throw thrown;
      deps.reportFault({ name, why: thrown.what });
    }
  }
  return null;
}

async function countRemoved(
  { file, manifest }: ChainLink,
  pinset: WrittenPinset,
  workspace: PinsetWorkspace,
): Promise<number> {
  const before = workspace.openNumberedCids();
  const after = workspace.openNumberedCids();
  let removed = 0;
  try {
    await readSignedBody(file, manifest, (lines) => addCids(before, lines));
    await pinset.read((lines) => addCids(after, lines));
    workspace.joinNumberedCids(before, after, (_, there) => {
      if (there === -1) removed += 1;
    });
  } finally {
    before.close();
    after.close();
  }
  return removed;
}

function addCids(cids: NumberedCids, lines: Buffer): void {
  for (const line of linesOf(lines)) cids.add(readPinLine(line).cid, 0);
}
