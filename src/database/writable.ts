import { OperatorError } from "../errors.ts";
import { codeOfServer } from "./connection-fault.ts";
import type { PostgresPool } from "./postgres.ts";

/** Why PostgreSQL answers and yet takes no writes. */
export type WriteFault = "disk-full" | "read-only";

/** By SQLSTATE (PostgreSQL's manual, appendix A): disk_full and read_only_sql_transaction. */
const FAULTS: Readonly<Record<string, WriteFault>> = { "53100": "disk-full", "25006": "read-only" };

/** What is said of each: `what` without its end, and what to do. */
export const WRITE_FAULTS: Readonly<Record<WriteFault, { readonly what: string; readonly remedy: string }>> =
  {
    "disk-full": {
      what: "PostgreSQL can't write: its disk is full",
      remedy: "Free space on the disk that has PostgreSQL's data, or make it larger.",
    },
    "read-only": {
      what: "PostgreSQL can't write: it is read-only",
      remedy: "Set POSTGRES_HOST to the primary server, or turn default_transaction_read_only off there.",
    },
  };

/** The fault behind an error of PostgreSQL, or behind the OperatorError that it caused; null for every other error. */
export function writeFaultOf(thrown: unknown): WriteFault | null {
  return FAULTS[codeOfServer(thrown instanceof OperatorError ? thrown.cause : thrown)] ?? null;
}

/** The error of a fault. */
export function writeError(fault: WriteFault): OperatorError {
  return new OperatorError({ exit: "unavailable", ...WRITE_FAULTS[fault] });
}

/**
 * Makes PostgreSQL write a temporary file of about half a megabyte beside the database's own files, and drop it: on a full
 * disk that fails with 53100. An UPDATE of one row would succeed there as long as its page has room. Nothing is changed, so
 * a session that is read-only can ask it, too. The series depends on the settings, which therefore are set first; they end
 * with the statement.
 */
const SPACE_SQL = `
  SELECT count(*)::integer AS rows, pg_is_in_recovery() AS recovering
  FROM (SELECT set_config('work_mem', '64kB', true) || set_config('temp_tablespaces', '', true) AS text) AS small
  CROSS JOIN LATERAL generate_series(1, 20000 + 0 * length(small.text))`;

/** PostgreSQL's own limit for temporary files: says nothing about the disk. */
const LIMITED = "53400";

/** Asks SPACE_SQL. Returns the fault; null if there is none. Throws what else PostgreSQL answers. */
export async function findWriteFault(
  query: (sql: string) => Promise<readonly Record<string, unknown>[]>,
): Promise<WriteFault | null> {
  try {
    return (await query(SPACE_SQL))[0]?.["recovering"] === true ? "read-only" : null;
  } catch (thrown) {
    const fault = writeFaultOf(thrown);
    if (fault === null && codeOfServer(thrown) !== LIMITED) throw thrown;
    return fault;
  }
}

/** How long an answer that there is space holds, and how long a write that failed counts. */
const FRESH_MS = 15_000;
const REMEMBERED_MS = 15_000;

/** Whether writes to the database succeed. */
export interface WriteWatch {
  /** The same pool; what fails in it for want of space is remembered. */
  readonly pool: PostgresPool;
  /** Throws the error of the fault if the disk is full. Asks the database at most every 15 s while it has space. */
  readonly check: (timeoutMs: number) => Promise<void>;
}

/** Watches the statements of a pool. `nowMs` is a monotonic clock. */
export function watchWrites(pool: PostgresPool, nowMs: () => number = () => performance.now()): WriteWatch {
  let failedAt = Number.NEGATIVE_INFINITY;
  let spaceUntil = Number.NEGATIVE_INFINITY;
  const noting = async <Result>(work: Promise<Result>): Promise<Result> => {
    try {
      return await work;
    } catch (thrown) {
      if (writeFaultOf(thrown) === "disk-full") failedAt = nowMs();
      throw thrown;
    }
  };
  return {
    pool: {
      query: (...given) => noting(pool.query(...given)),
      transaction: (work) => noting(pool.transaction(work)),
      connections: () => pool.connections(),
      close: () => pool.close(),
    },
    async check(timeoutMs) {
      // A table may lie on another disk than temporary files: what really failed says more.
      if (nowMs() - failedAt < REMEMBERED_MS) throw writeError("disk-full");
      if (nowMs() < spaceUntil) return;
      const fault = await findWriteFault((sql) => pool.query(sql, [], { timeoutMs }));
      if (fault !== null) throw writeError(fault);
      spaceUntil = nowMs() + FRESH_MS;
    },
  };
}
