import { randomUUID } from "node:crypto";
import { setTimeout as wait } from "node:timers/promises";
import { connectionFaultOf, isTransient } from "../database/connection-fault.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { messageOf } from "../errors.ts";

type Database = Pick<PostgresPool, "query">;

/** A bucket of an owner. `owner` is the id that gateways store: 32 hexadecimal digits of the hashed user id. */
export interface Bucket {
  readonly owner: string;
  readonly bucket: string;
}

/** Where a bucket's root stands. */
export interface RootPointer {
  /** The CID of the root, as the writer wrote it. */
  readonly root: string;
  /** 1 for the first root, and one more with each move; a decimal number. */
  readonly version: string;
}

/** A move of a root. */
export interface RootMove extends Bucket {
  /** The pointer that the new root was built on, as it was read; null for the first root of a bucket. */
  readonly base: RootPointer | null;
  /** The new root. */
  readonly root: string;
  /**
   * The id of this write, a UUID. To ask again after Unknown, pass the same id. Default: a new one.
   */
  readonly write?: string;
}

/**
 * What became of a move. `Won`: the root is the new one. `Conflict`: it is not, because another writer was first or next:
 * `current` is the root now (null: the bucket has none), and `isWritten` says whether this move happened before that; null
 * if so many followed that nobody knows. `Unknown`: the database did not answer; the move may have happened, or may still.
 */
export type MoveOutcome =
  | { readonly outcome: "Won"; readonly pointer: RootPointer }
  | ({ readonly outcome: "Conflict" } & MoveConflict)
  | ({ readonly outcome: "Unknown" } & MoveUnknown);

interface MoveConflict {
  readonly current: RootPointer | null;
  readonly isWritten: boolean | null;
}

interface MoveUnknown {
  readonly write: string;
  readonly why: string;
}

/** How often a move is tried when the database does not answer, and how long one answer may take. */
export interface MoveLimits {
  readonly tries: number;
  readonly answerMs: number;
  /** The pause before the second try; it doubles with each further one. */
  readonly pauseMs: number;
}

const LIMITS: MoveLimits = { tries: 5, answerMs: 5_000, pauseMs: 100 };

/** A writer worked on a root that is not the current one: it must read the root again, and apply its change to that. */
export class StaleRoot extends Error {
  readonly current: RootPointer | null;
  readonly isWritten: boolean | null;

  constructor({ owner, bucket, base }: RootMove, { current, isWritten }: MoveConflict) {
    const at = (pointer: RootPointer | null): string =>
      pointer === null ? "no root" : `version ${pointer.version}`;
    super(`the root of ${owner}/${bucket} is at ${at(current)}, not at ${at(base)}`);
    this.name = "StaleRoot";
    this.current = current;
    this.isWritten = isWritten;
  }
}

/** Nobody knows whether a root was moved. The writer asks again with the same id of the write. */
export class UnknownMove extends Error {
  readonly write: string;

  constructor({ owner, bucket }: RootMove, { write, why }: MoveUnknown) {
    super(`whether the root of ${owner}/${bucket} was moved is not known: ${why}`);
    this.name = "UnknownMove";
    this.write = write;
  }
}

/** The new pointer of a move that won. Throws StaleRoot or UnknownMove for the other outcomes. */
export function requireWon(move: RootMove, outcome: MoveOutcome): RootPointer {
  if (outcome.outcome === "Won") return outcome.pointer;
  throw outcome.outcome === "Conflict" ? new StaleRoot(move, outcome) : new UnknownMove(move, outcome);
}

/** The root of a bucket now; null if it has none. Throws if the database does not answer. */
export async function readRoot(database: Database, { owner, bucket }: Bucket): Promise<RootPointer | null> {
  return (await read(database, { owner, bucket }, LIMITS))?.pointer ?? null;
}

/**
 * Moves a bucket's root by compare-and-swap, or gives it its first one: one statement decides. When the answer gets lost,
 * it asks again with the same id of the write, so a move of this writer is told from one of another. Throws what is no fault
 * of the connection, such as a text that PostgreSQL does not take.
 */
export async function moveRoot(
  database: Database,
  move: RootMove,
  limits: MoveLimits = LIMITS,
): Promise<MoveOutcome> {
  const write = move.write ?? randomUUID();
  let mayBeWritten = move.write !== undefined;
  let pauseMs = limits.pauseMs;
  for (let left = limits.tries; ; left -= 1) {
    try {
      return await decide(database, { ...move, write, mayBeWritten }, limits);
    } catch (thrown) {
      if (!isTransient(connectionFaultOf(thrown))) throw thrown;
      mayBeWritten = true;
      if (left <= 1) return { outcome: "Unknown", write, why: messageOf(thrown) };
    }
    await wait(pauseMs);
    pauseMs *= 2;
  }
}

async function decide(
  database: Database,
  {
    owner,
    bucket,
    base,
    root,
    write,
    mayBeWritten,
  }: RootMove & { readonly write: string; readonly mayBeWritten: boolean },
  limits: MoveLimits,
): Promise<MoveOutcome> {
  const [sql, values, name] =
    base === null
      ? ([CLAIM_ROOT, [owner, bucket, root, write], "claim-root"] as const)
      : ([SWAP_ROOT, [owner, bucket, root, write, base.root, base.version], "swap-root"] as const);
  const [moved] = await database.query<{ version: string }>(sql, values, {
    name,
    timeoutMs: limits.answerMs,
  });
  if (moved !== undefined) return { outcome: "Won", pointer: { root, version: moved.version } };
  const found = await read(database, { owner, bucket }, limits);
  const current = found?.pointer ?? null;
  if (!mayBeWritten) return { outcome: "Conflict", current, isWritten: false };
  const moves = found === null ? 0n : BigInt(found.pointer.version) - BigInt(base?.version ?? 0);
  if (found?.writes.includes(write) === true)
    return moves === 1n
      ? { outcome: "Won", pointer: found.pointer }
      : { outcome: "Conflict", current, isWritten: true };
  // Each move pushes one id out at most. A bucket whose row was deleted begins anew, and remembers nothing.
  const isWritten = moves > 0n && moves <= BigInt(KEPT_WRITES) ? false : null;
  return { outcome: "Conflict", current, isWritten };
}

async function read(
  database: Database,
  { owner, bucket }: Bucket,
  { answerMs }: Pick<MoveLimits, "answerMs">,
): Promise<{ readonly pointer: RootPointer; readonly writes: readonly string[] } | null> {
  const [row] = await database.query<{ root_cid: string; version: string; writes: string[] }>(
    READ_ROOT,
    [owner, bucket],
    { name: "read-root", timeoutMs: answerMs },
  );
  if (row === undefined) return null;
  return { pointer: { root: row.root_cid, version: row.version }, writes: row.writes };
}

/** How many writes a bucket remembers. */
const KEPT_WRITES = 16;

/** docs/bucket-roots.md has these statements, for gateways. */
export const CLAIM_ROOT = `
  WITH moved AS (
    INSERT INTO bucket_roots (owner_id, bucket, root_cid) VALUES ($1, $2, $3)
      ON CONFLICT (owner_id, bucket) DO NOTHING
      RETURNING version
  ), noted AS (
    ${noteSql()}
  )
  SELECT version::text AS version FROM moved`;

export const SWAP_ROOT = `
  WITH moved AS (
    UPDATE bucket_roots SET root_cid = $3, version = version + 1, updated_at = now()
      WHERE owner_id = $1 AND bucket = $2 AND root_cid = $5 AND version = $6::bigint
      RETURNING version
  ), noted AS (
    ${noteSql()}
  )
  SELECT version::text AS version FROM moved`;

export const READ_ROOT = `
  SELECT root_cid, version::text AS version, coalesce(writes, '{}') AS writes
  FROM bucket_roots LEFT JOIN bucket_writes USING (owner_id, bucket)
  WHERE owner_id = $1 AND bucket = $2`;

/** A move holds the row of its bucket, so there is one such statement at a time. */
function noteSql(): string {
  return `INSERT INTO bucket_writes AS w (owner_id, bucket, writes) SELECT $1, $2, ARRAY[$4::uuid] FROM moved
      ON CONFLICT (owner_id, bucket) DO UPDATE SET writes = (excluded.writes || w.writes)[1:${KEPT_WRITES}]`;
}
