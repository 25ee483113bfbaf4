import { moveRoot, readRoot, type MoveOutcome, type RootPointer } from "../../src/buckets/bucket-roots.ts";
import type { PostgresPool } from "../../src/database/postgres.ts";

type Database = Pick<PostgresPool, "query">;

/** What one client saw of one bucket. Times are of one clock. */
export interface Seen {
  readonly bucket: string;
  readonly began: number;
  readonly ended: number;
  readonly base: RootPointer;
  /** Of a swap: the root that it wrote. */
  readonly root: string;
  readonly outcome: MoveOutcome;
}

/** How many clients swap how often in how many buckets. */
export interface SwapLoad {
  readonly clients: number;
  readonly swaps: number;
  readonly buckets: number;
}

export const OWNER = "00112233445566778899aabbccddeeff";

/** Gives each bucket its first root. */
export async function claimBuckets(database: Database, count: number): Promise<readonly string[]> {
  const names = Array.from({ length: count }, (_, n) => `bucket-${n}`);
  for (const bucket of names) {
    const { outcome } = await moveRoot(database, { owner: OWNER, bucket, base: null, root: "root-0" });
    if (outcome !== "Won") throw new Error(`claim of ${bucket}: ${outcome}`);
  }
  return names;
}

/**
 * Each client wins so many swaps, in turn in all buckets. A root names its writer and its parent, as a real root's CID
 * depends on what it was built from. After a conflict, a client builds on the current root.
 */
export async function swapAll(
  database: Database,
  { clients, swaps, buckets }: SwapLoad,
): Promise<readonly Seen[]> {
  const names = await claimBuckets(database, buckets);
  const seen: Seen[] = [];
  const work = async (client: number): Promise<void> => {
    for (let n = 0; n < swaps; n += 1) {
      const bucket = names[(client + n) % buckets] ?? "";
      let base = await readRoot(database, { owner: OWNER, bucket });
      for (;;) {
        if (base === null) throw new Error(`${bucket} has no root`);
        const root = `${client}.${n} on ${base.version}`;
        const began = performance.now();
        const outcome = await moveRoot(database, { owner: OWNER, bucket, base, root });
        seen.push({ bucket, began, ended: performance.now(), base, root, outcome });
        if (outcome.outcome === "Won") break;
        if (outcome.outcome === "Unknown") throw new Error(outcome.why);
        base = outcome.current;
      }
    }
  };
  await Promise.all(Array.from({ length: clients }, (_, client) => work(client)));
  return seen;
}

/** What the same clients do without compare-and-swap: they read, build on it, and write. Returns lost updates. */
export async function overwriteAll(
  database: Database,
  { clients, swaps, buckets }: SwapLoad,
): Promise<number> {
  const names = await claimBuckets(database, buckets);
  const parents = new Map<string, string>();
  const work = async (client: number): Promise<void> => {
    for (let n = 0; n < swaps; n += 1) {
      const bucket = names[(client + n) % buckets] ?? "";
      const root = `${client}.${n}`;
      parents.set(`${bucket} ${root}`, (await readRoot(database, { owner: OWNER, bucket }))?.root ?? "");
      await database.query("UPDATE bucket_roots SET root_cid = $3 WHERE owner_id = $1 AND bucket = $2", [
        OWNER,
        bucket,
        root,
      ]);
    }
  };
  await Promise.all(Array.from({ length: clients }, (_, client) => work(client)));
  let kept = 0;
  for (const bucket of names) {
    let root = (await readRoot(database, { owner: OWNER, bucket }))?.root ?? "";
    for (; root !== "root-0"; kept += 1) root = parents.get(`${bucket} ${root}`) ?? "";
  }
  return clients * swaps - kept;
}

/**
 * What is wrong with a history, in words; empty if every bucket is linearizable and no update was lost: the moves that won
 * are one chain from the first root to the last, in an order that no client can tell from its own clock.
 */
export function faultsOf(
  seen: readonly Seen[],
  last: ReadonlyMap<string, RootPointer | null>,
): readonly string[] {
  const faults: string[] = [];
  for (const [bucket, end] of last) {
    const ours = seen.filter((one) => one.bucket === bucket);
    const won = ours
      .filter(({ outcome }) => outcome.outcome === "Won")
      .toSorted((one, other) => versionOf(one) - versionOf(other));
    const at = [{ root: "root-0", version: 1, began: -Infinity, ended: -Infinity }];
    for (const move of won) {
      const before = at.at(-1);
      const version = versionOf(move);
      if (before === undefined || version !== before.version + 1)
        faults.push(`${bucket}: version ${version} follows ${before?.version}`);
      if (move.base.root !== before?.root || Number(move.base.version) !== before.version)
        faults.push(`${bucket}: version ${version} is not built on the one before`);
      at.push({ root: move.root, version, began: move.began, ended: move.ended });
    }
    if (end?.root !== at.at(-1)?.root || Number(end?.version) !== at.at(-1)?.version)
      faults.push(`${bucket}: it ends at ${end?.root}, version ${end?.version}`);
    faults.push(...timeFaults(bucket, at), ...conflictFaults(bucket, ours, at));
  }
  return faults;
}

interface Move {
  readonly root: string;
  readonly version: number;
  readonly began: number;
  readonly ended: number;
}

/** A move may not end before one of a smaller version began. */
function timeFaults(bucket: string, moves: readonly Move[]): readonly string[] {
  let latestBegan = -Infinity;
  const faults: string[] = [];
  for (const { version, began, ended } of moves) {
    if (ended < latestBegan) faults.push(`${bucket}: version ${version} ended before an earlier one began`);
    latestBegan = Math.max(latestBegan, began);
  }
  return faults;
}

/** A conflict shows a root that was current at some time between its beginning and its end. */
function conflictFaults(bucket: string, seen: readonly Seen[], moves: readonly Move[]): readonly string[] {
  const faults: string[] = [];
  for (const { began, ended, base, outcome } of seen) {
    if (outcome.outcome !== "Conflict") continue;
    const version = Number(outcome.current?.version);
    const move = moves[version - 1];
    const next = moves[version];
    if (move === undefined || move.root !== outcome.current?.root)
      faults.push(`${bucket}: a conflict shows what nobody wrote`);
    else if (version <= Number(base.version) || move.began > ended || (next?.ended ?? Infinity) < began)
      faults.push(`${bucket}: a conflict shows version ${version}, which was not current then`);
  }
  return faults;
}

function versionOf({ outcome }: Seen): number {
  return outcome.outcome === "Won" ? Number(outcome.pointer.version) : 0;
}
