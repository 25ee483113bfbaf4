import { type ExitName, OperatorError } from "../../errors.ts";
import type { VerifyingKey } from "../../machine/signing.ts";
import type { OrderVerdict } from "./chain.ts";
import type { SnapshotFile } from "./store.ts";
import { judgeNeighbours, type Sha256, verifySnapshot } from "./verify.ts";

/** One snapshot of a directory, checked. */
export interface ListedSnapshot {
  readonly name: string;
  readonly layout: "ours" | "upstream";
  /** `verified`; else the exit with which `verify` refuses it. */
  readonly verdict: "verified" | ExitName;
  /** Why it is refused, in a sentence. */
  readonly why: string | null;
  readonly count: number | null;
  readonly sizeBytes: number | null;
  /** Its number in the chain. */
  readonly sequence: number | null;
  /** How it hangs on the one before: `first`, `linked`, or `gap` where that is not here. */
  readonly order: string | null;
  /** The pinset had shrunk much since the snapshot before. */
  readonly drop: { readonly from: number; readonly to: number } | null;
  /** When it was taken, as it says itself or as its name says. */
  readonly takenAt: string | null;
  /** Negative where the clock has jumped back since. */
  readonly ageMs: number | null;
}

/** Checks every snapshot of a directory whole, and gives them in the order of the chain, those outside of it first. A damaged one does not stop the others. */
export async function listSnapshots(
  files: readonly SnapshotFile[],
  key: VerifyingKey,
  hands: { readonly sha256: Sha256; readonly now: Date },
): Promise<readonly ListedSnapshot[]> {
  const listed: ListedSnapshot[] = [];
  const order = judgeNeighbours(files, key, hands.sha256);
  for (const file of files) listed.push(await judge(file, key, { ...hands, order }));
  return listed.toSorted((a, b) => (a.sequence ?? 0) - (b.sequence ?? 0));
}

async function judge(
  file: SnapshotFile,
  key: VerifyingKey,
  hands: { readonly sha256: Sha256; readonly now: Date; readonly order: ReadonlyMap<string, OrderVerdict> },
): Promise<ListedSnapshot> {
  const fixed = { name: file.name, layout: file.layout };
  try {
    const { manifest, count, sizeBytes, order } = await verifySnapshot(file, key, hands);
    const takenAt = manifest?.created_at ?? timeInName(file.name);
    return {
      ...fixed,
      verdict: "verified",
      why: null,
      count,
      sizeBytes,
      sequence: manifest?.sequence ?? null,
      order: manifest === null ? null : order.state,
      drop: manifest?.drop ?? null,
      takenAt,
      ageMs: ageOf(takenAt, hands.now),
    };
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    const takenAt = timeInName(file.name);
    return {
      ...fixed,
      verdict: thrown.exit,
      why: thrown.what,
      count: null,
      sizeBytes: null,
      sequence: null,
      order: null,
      drop: null,
      takenAt,
      ageMs: ageOf(takenAt, hands.now),
    };
  }
}

function timeInName(name: string): string | null {
  const match = /(\d{4})-?(\d\d)-?(\d\d)[T_-]?(\d\d):?(\d\d):?(\d\d)Z?/.exec(name);
  if (match === null) return null;
  const [, year, month, day, hour, minute, second] = match;
  const at = new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  return Number.isNaN(at.getTime()) ? null : at.toISOString();
}

function ageOf(takenAt: string | null, now: Date): number | null {
  return takenAt === null ? null : now.getTime() - Date.parse(takenAt);
}
