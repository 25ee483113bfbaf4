import { OperatorError } from "../errors.ts";
import type { ClusterReader } from "../cluster/client.ts";
import type { PinsetMatch, PinsetWorkspace } from "../host/pinset-workspace.ts";
import type { Mark, PinsetMarks } from "../model/pinset-marks.ts";
import type { VerifiedSnapshot } from "./snapshot-verify.ts";

/** A pinset that can be read any number of times, always in the same order. */
export interface PinsetSource {
  readonly title: string;
  /** Hands over blocks of whole lines, one pin a line. */
  read(takeLines: (lines: Buffer) => void | Promise<void>): Promise<void>;
  close(): Promise<void>;
}

const NEWLINE = 0x0a;

/** A verified snapshot; every reading of it is checked to be of the very bytes that were verified. */
export function snapshotSource({ file, sha256 }: VerifiedSnapshot): PinsetSource {
  return {
    title: file.name,
    read: async (takeLines) => {
      const reading = await file.read({ takeLines });
      if (reading.sha256 === sha256) return;
      throw new OperatorError({
        exit: "integrity",
        what: `${file.bodyFile} was changed after it had been verified.`,
        remedy: "Find out who writes there, then start over with a copy that verifies.",
      });
    },
    close: () => Promise.resolve(),
  };
}

/** The pinset that the cluster has now, kept on the disk until it is closed. Throws (`unavailable`) where the list is not complete. */
export async function liveSource(cluster: ClusterReader, workspace: PinsetWorkspace): Promise<PinsetSource> {
  const spool = await workspace.openSpool();
  try {
    await cluster.list("allocations", (lines) => spool.write(lines));
    await spool.finish();
  } catch (thrown) {
    await spool.close();
    throw thrown;
  }
  return { title: "live", read: (takeLines) => spool.read(takeLines), close: () => spool.close() };
}

/** Compares two pinsets pin by pin, in constant memory but for two bits a pin. */
export async function compare(
  left: Pick<PinsetSource, "read">,
  right: Pick<PinsetSource, "read">,
  workspace: PinsetWorkspace,
): Promise<PinsetMatch> {
  const leftSpill = workspace.openSpill();
  const rightSpill = workspace.openSpill();
  try {
    await left.read((lines) => leftSpill.add(lines));
    await right.read((lines) => rightSpill.add(lines));
    return workspace.matchSpills(leftSpill, rightSpill);
  } finally {
    leftSpill.close();
    rightSpill.close();
  }
}

/** Reads a pinset and visits the pins that have one of these marks, in order; a visit's promise makes the reading wait. */
export function eachMarked(
  source: PinsetSource,
  marks: PinsetMarks,
  wanted: readonly Mark[],
  visit: (line: string, mark: Mark, place: number) => void | Promise<void>,
): Promise<void> {
  let place = 0;
  return source.read(async (lines) => {
    let start = 0;
    while (start < lines.length) {
      const newline = lines.indexOf(NEWLINE, start);
      const end = newline === -1 ? lines.length : newline;
      if (end > start) {
        const mark = marks.get(place);
        if (wanted.includes(mark)) {
          const pending = visit(lines.toString("utf8", start, end), mark, place);
          if (pending !== undefined) await pending;
        }
        place += 1;
      }
      start = end + 1;
    }
  });
}
