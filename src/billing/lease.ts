import { connectionFaultOf } from "../database/connection-fault.ts";
import { type HeldSession, openHeldSession } from "../database/held-session.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { messageOf, OperatorError } from "../errors.ts";
import { LEASE_LOCK, LOCK } from "./deduction-sql.ts";
import type { PostgresTarget } from "../settings/postgres-target.ts";

/** Where transactions of the billing run. */
export type Bank = Pick<PostgresPool, "query" | "transaction">;

/** Which master runs the crons. */
export interface Lease {
  /** Looks whether this master leads, and takes the lease if it is free. Never throws. */
  lookAgain(): Promise<boolean>;
  /**
   * Where the leader's transactions run: in the session that holds the lock, so whoever gets the lock knows that no
   * transaction of the holder before it is open. Each one begins with the generation, and fails if it is not this one's.
   * Null on a standby.
   */
  bank(): Bank | null;
  /** Why the database did not say who leads when it was last asked; null if it did. */
  fault(): string | null;
  /** Gives the lease back. */
  release(): Promise<void>;
}

/** What a lease needs. */
export interface LeaseOptions {
  readonly target: PostgresTarget;
  /** Heartbeats go through it: the session of the lock may be busy for minutes. */
  readonly pool: Pick<PostgresPool, "query">;
  /** MASTER_ID; null if this master has none. */
  readonly holder: string | null;
  readonly log: (line: string) => void;
  /** A holder of ours that is silent for longer loses the lease. */
  readonly silentAfterMs: number;
}

/** How often a holder says that it is alive, and a standby looks. */
export const BEAT_MS = 10_000;
/** A holder that is silent for this long loses the lease. */
export const SILENT_AFTER_MS = 60_000;
/** The longest answer to a question about the lease. After it, the session is destroyed: the lock may have been taken. */
const ANSWER_MS = 5_000;

/** The lease of functionland/pinning-service (leaderLease.ts), with its lock and log lines. */
export function openLease(options: LeaseOptions): Lease {
  const { target, pool, holder, log, silentAfterMs } = options;
  let session: HeldSession | null = null;
  /** Null on a standby. */
  let generation: string | null = null;
  let lastFault = "";

  /** On any error, the session ends: otherwise the lock could stay with a connection that nobody uses. */
  function drop(why: string | null): void {
    if (generation !== null)
      log(`[leaderLease] lost the cron lease${why === null ? "" : `: ${why}`} — this master stands by`);
    generation = null;
    session?.destroy();
    session = null;
  }

  async function take(): Promise<void> {
    session ??= await openHeldSession(target, "fula-node crons");
    const limit = { timeoutMs: ANSWER_MS };
    let [row] = await session.query<{ locked: boolean }>(TRY, [], limit);
    if (row?.locked !== true) {
      const [silent] = await session.query<{ holder: string | null; seconds: number }>(
        END_SILENT,
        [silentAfterMs],
        limit,
      );
      if (silent === undefined) return;
      log(
        `[leaderLease] the lease holder ${silent.holder ?? "without an identity"} was silent for ${silent.seconds} s: its session was ended`,
      );
      [row] = await session.query<{ locked: boolean }>(TRY, [], limit);
      if (row?.locked !== true) return;
    }
    const [claimed] = await session.query<{ generation: string }>(CLAIM, [holder], limit);
    generation = claimed?.generation ?? null;
    log("[leaderLease] acquired cron lease — this master runs the crons");
  }

  async function beat(): Promise<void> {
    const [alive] = await pool.query(BEAT, [generation], { timeoutMs: ANSWER_MS });
    if (alive === undefined) drop("its session does not hold it any more");
  }

  return {
    async lookAgain() {
      try {
        if (session?.isOpen() === false) drop("its database session ended");
        if (generation === null) await take();
        else await beat();
        lastFault = "";
      } catch (thrown) {
        // A holder whose heartbeat failed goes on: each transaction checks the generation itself.
        if (generation === null) drop(null);
        const fault = thrown instanceof OperatorError ? thrown.what : messageOf(thrown);
        if (fault !== lastFault) log(`[leaderLease] the database does not answer: ${fault}`);
        lastFault = fault;
      }
      return generation !== null;
    },
    bank() {
      const held = session;
      const mine = generation;
      if (held === null || mine === null) return null;
      const guard = async <Result>(work: Promise<Result>): Promise<Result> => {
        try {
          return await work;
        } catch (thrown) {
          if (generation === mine && (thrown instanceof LeaseLost || connectionFaultOf(thrown) !== null))
            drop(messageOf(thrown));
          throw thrown;
        }
      };
      return {
        query: (...statement) => guard(held.query(...statement)),
        transaction: (work) =>
          guard(
            held.transaction(async (database) => {
              const [current] = await database.query(FENCE, [mine]);
              if (current === undefined) throw new LeaseLost();
              return work(database);
            }),
          ),
      };
    },
    fault: () => (lastFault === "" ? null : lastFault),
    async release() {
      const held = session;
      const mine = generation;
      session = null;
      generation = null;
      if (held === null) return;
      // The end of the session frees the lock, whatever comes of this.
      if (mine !== null) await held.query(RELEASE, [mine], { timeoutMs: ANSWER_MS }).catch(() => {});
      await held.close();
    },
  };
}

/** Another master has taken the lease. */
class LeaseLost extends Error {
  constructor() {
    super("another master has taken the lease");
  }
}

const TRY = `SELECT pg_try_advisory_lock(${LOCK}) AS locked`;

const CLAIM = `
  INSERT INTO cron_lease AS l (name, generation, holder, pid, backend_start, acquired_at, heartbeat_at)
    SELECT 'billing', 1, $1, pid, backend_start, clock_timestamp(), clock_timestamp()
    FROM pg_stat_activity WHERE pid = pg_backend_pid()
    ON CONFLICT (name) DO UPDATE SET generation = l.generation + 1, holder = excluded.holder, pid = excluded.pid,
      backend_start = excluded.backend_start, acquired_at = excluded.acquired_at, heartbeat_at = excluded.heartbeat_at
    RETURNING generation::text`;

/** Says nothing for a session that the server has ended. */
const BEAT = `
  UPDATE cron_lease l SET heartbeat_at = clock_timestamp()
    FROM pg_stat_activity a
    WHERE l.name = 'billing' AND l.generation = $1 AND a.pid = l.pid AND a.backend_start = l.backend_start
    RETURNING l.generation`;

const FENCE = "SELECT generation FROM cron_lease WHERE name = 'billing' AND generation = $1";

const RELEASE =
  "UPDATE cron_lease SET pid = NULL, backend_start = NULL WHERE name = 'billing' AND generation = $1";

/** The session that holds the lock, if the lease's row describes it. */
const HOLDER = `
  FROM pg_locks k
    JOIN pg_stat_activity a ON a.pid = k.pid
    JOIN cron_lease l ON l.name = 'billing' AND l.pid = a.pid AND l.backend_start = a.backend_start
  WHERE ${LEASE_LOCK}`;

/**
 * Ends the session of a holder of ours that is silent, and waits up to 3 s until it is gone (PostgreSQL 14 or newer). A
 * holder that the row does not describe is upstream's, and is left alone.
 */
const END_SILENT = `
  SELECT l.holder, extract(epoch FROM clock_timestamp() - l.heartbeat_at)::int AS seconds,
    pg_terminate_backend(a.pid, 3000) AS ended
  ${HOLDER} AND clock_timestamp() - l.heartbeat_at > $1 * interval '1 ms'`;
