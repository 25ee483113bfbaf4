import { type ExitName, OperatorError } from "../../errors.ts";
import type { VerifyingKey } from "../../machine/signing.ts";
import type { OrderVerdict } from "./chain.ts";
import { checkChain } from "./links.ts";
import type { Manifest } from "./manifest.ts";
import { countNumbers, findMissing, type Numbers } from "./memory.ts";
import type { SnapshotFile } from "./store.ts";
import { type Sha256, verifySnapshot } from "./verify.ts";

/** One snapshot of a directory, with the result of its verification. */
export interface ListedSnapshot {
  readonly name: string;
  readonly layout: "ours" | "upstream";
  /** `verified`, or the name of the exit code that `snapshot verify` would give. */
  readonly verdict: "verified" | ExitName;
  /** Why it is not valid, in a sentence. */
  readonly why: string | null;
  readonly count: number | null;
  readonly sizeBytes: number | null;
  /** Its number in the chain of snapshots. */
  readonly sequence: number | null;
  /** How it relates to the previous one: `first`, `linked`, or `gap` if that one is not here. */
  readonly order: string | null;
  /** How many snapshots are missing between this one and the one before it that is here; null if that is not recorded. */
  readonly missing: number | null;
  /** Set if too many pins of an earlier snapshot were gone. */
  readonly drop: Manifest["drop"];
  /** True if the chain did not continue from the last snapshot that was taken before it. */
  readonly restarted: boolean;
  /** True if the operator accepted its pinset as right. */
  readonly accepted: boolean;
  /** When it was taken, from its manifest or from its name. */
  readonly takenAt: string | null;
  /** Negative if the clock was set back since then. */
  readonly ageMs: number | null;
}

/** Verifies every snapshot of a directory completely and gives them in the order of the chain. Snapshots outside the chain come first. A damaged snapshot does not stop the check of the others. */
export async function listSnapshots(
  files: readonly SnapshotFile[],
  keys: readonly VerifyingKey[],
  deps: {
    readonly sha256: Sha256;
    readonly now: Date;
    /** The numbers that are rightly not here; null if they are not recorded. */
    readonly removed?: readonly Numbers[] | null;
  },
): Promise<readonly ListedSnapshot[]> {
  const listed: ListedSnapshot[] = [];
  const order = checkChain(files, keys, deps.sha256);
  for (const file of files) listed.push(await verifyOne(file, keys, { ...deps, order }));
  const sorted = listed.toSorted((a, b) => (a.sequence ?? 0) - (b.sequence ?? 0));
  return countMissing(sorted, deps.removed ?? null);
}

function countMissing(
  sorted: readonly ListedSnapshot[],
  removed: readonly Numbers[] | null,
): readonly ListedSnapshot[] {
  if (removed === null) return sorted;
  const absent = findMissing(
    sorted.flatMap(({ sequence }) => sequence ?? []),
    removed,
  );
  let before = 0;
  return sorted.map((one) => {
    const { sequence } = one;
    if (sequence === null) return one;
    const between = absent.filter(([first]) => first > before && first < sequence);
    before = sequence;
    return { ...one, missing: countNumbers(between) };
  });
}

async function verifyOne(
  file: SnapshotFile,
  keys: readonly VerifyingKey[],
  deps: { readonly sha256: Sha256; readonly now: Date; readonly order: ReadonlyMap<string, OrderVerdict> },
): Promise<ListedSnapshot> {
  const fixed = { name: file.name, layout: file.layout };
  try {
    const { manifest, count, sizeBytes, order } = await verifySnapshot(file, keys, deps);
    const takenAt = manifest?.created_at ?? timeInName(file.name);
    return {
      ...fixed,
      verdict: "verified",
      why: null,
      count,
      sizeBytes,
      sequence: manifest?.sequence ?? null,
      order: manifest === null ? null : order.state,
      missing: null,
      drop: manifest?.drop ?? null,
      restarted: manifest?.restart !== undefined,
      accepted: manifest?.accepted === true,
      takenAt,
      ageMs: ageOf(takenAt, deps.now),
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
      missing: null,
      drop: null,
      restarted: false,
      accepted: false,
      takenAt,
      ageMs: ageOf(takenAt, deps.now),
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
