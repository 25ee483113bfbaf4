import { OperatorError } from "../errors.ts";
import type { PostgresTarget } from "../settings/postgres-target.ts";
import { describeRefusal } from "./connection-fault.ts";
import { commit, type PostgresPool, queryOn } from "./postgres.ts";
import { closeSession, openSession } from "./session.ts";

/** One session that is held for long, for example for a lock that lives as long as the session. */
export interface HeldSession extends Pick<PostgresPool, "query" | "transaction"> {
  /** False once the connection broke, or was ended from either side. */
  isOpen(): boolean;
  /** Ends it in order; after a second without an answer, the connection is destroyed. */
  close(): Promise<void>;
  /** Destroys the connection at once, so that the server ends the session and frees what it holds. */
  destroy(): void;
}

/** The longest statement, and how long it waits for a lock, in milliseconds. */
const STATEMENT_MS = 120_000;
const LOCK_MS = 10_000;

/** Opens a session. Throws an OperatorError if it can't be opened (describeRefusal), also if a pooler answers. */
export async function openHeldSession(target: PostgresTarget, applicationName: string): Promise<HeldSession> {
  const opened = await openSession(target, {
    applicationName,
    readOnly: false,
    statementTimeoutMs: STATEMENT_MS,
    lockTimeoutMs: LOCK_MS,
  });
  if ("kind" in opened) throw new OperatorError(describeRefusal(target, opened));
  const { client, socket } = opened;
  let isOpen = true;
  // One after the other: a session has one transaction at a time.
  let last: Promise<unknown> = Promise.resolve();
  client.on("end", () => {
    isOpen = false;
  });
  const query = queryOn(async () => client);
  const inTransaction = async <Result>(
    work: (database: Pick<PostgresPool, "query">) => Promise<Result>,
  ): Promise<Result> => {
    await client.query("BEGIN");
    try {
      const result = await work({ query });
      await commit(client);
      return result;
    } catch (thrown) {
      // If this fails too, the connection is gone, and PostgreSQL takes back what it did.
      await client.query("ROLLBACK").catch(() => socket.destroy());
      throw thrown;
    }
  };
  const inTurn = <Result>(work: () => Promise<Result>): Promise<Result> => {
    const result = last.then(work);
    last = result.catch(() => {});
    return result;
  };
  return {
    // A statement between two of another's transaction would be part of it, and its error would end it.
    query: (...statement) => inTurn(() => query(...statement)),
    transaction: (work) => inTurn(() => inTransaction(work)),
    isOpen: () => isOpen,
    close: () => closeSession(opened),
    destroy: () => void socket.destroy(),
  };
}
