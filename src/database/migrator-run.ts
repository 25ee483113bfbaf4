import type { Client } from "pg";
import { messageOf } from "../errors.ts";
import { markAdopted, markApplied, markApplying, markFailed, markReverted } from "./ledger.ts";
import {
  type FailedStatement,
  migrationFailed,
  revertFailed,
  type SqlError,
  summariseFailure,
} from "./migration-failure.ts";
import { type Migration, splitStatements } from "./migration-file.ts";
import type { MigrationAction } from "./migration-plan.ts";
import { databaseErrorOf } from "./postgres.ts";

/** A table's lock is asked for so long; meanwhile whoever comes after us on that table waits too. */
const LOCK_TIMEOUT = "SET LOCAL lock_timeout = '30s'";

/** Carries out one decided action in the session that holds the lock. Throws an OperatorError when it fails. */
export async function carryOut(
  client: Client,
  migration: Migration,
  action: Exclude<MigrationAction, "none">,
  toolVersion: string,
): Promise<void> {
  if (action === "adopt") return markAdopted(client, migration, toolVersion);
  await markApplying(client, migration, toolVersion);
  try {
    if (migration.recovery === null) {
      await inTransaction(client, migration, () => markApplied(client, migration));
      return;
    }
    if (action === "clear-and-retry") await client.query(migration.recovery.clear);
    await runStatements(client, migration);
  } catch (thrown) {
    const { failed, cause } = asFailure(migration, thrown);
    const error = sqlErrorOf(cause);
    // Without a connection the row goes on saying `applying`, which the next run understands as well.
    await markFailed(client, migration, summariseFailure(failed, error)).catch(() => {});
    const effect =
      migration.recovery === null
        ? "nothing of it is left"
        : "what it left behind is cleared by the next run";
    throw migrationFailed(failed, error, { effect, cause });
  }
  await markApplied(client, migration);
}

/** Runs a down file and marks its migration as reverted, in one transaction. */
export async function revert(
  client: Client,
  migration: Migration,
  down: NonNullable<Migration["down"]>,
): Promise<void> {
  try {
    await inTransaction(client, down, () => markReverted(client, migration));
  } catch (thrown) {
    const { failed, cause } = asFailure(down, thrown);
    throw revertFailed(failed, sqlErrorOf(cause), cause);
  }
}

interface SqlFile {
  readonly file: string;
  readonly sql: string;
}

/** The file's statements and `mark` become visible together or not at all. */
async function inTransaction(client: Client, file: SqlFile, mark: () => Promise<void>): Promise<void> {
  await client.query(`BEGIN; ${LOCK_TIMEOUT}`);
  try {
    await runStatements(client, file);
    await mark();
    await client.query("COMMIT");
  } catch (thrown) {
    // When the connection is gone, so is the transaction.
    await client.query("ROLLBACK").catch(() => {});
    throw thrown;
  }
}

/** One by one, so that a failure can be told by its line; CONCURRENTLY also allows no other statement beside it. */
async function runStatements(client: Client, { file, sql }: SqlFile): Promise<void> {
  for (const statement of splitStatements(sql)) {
    try {
      await client.query(statement.text);
    } catch (thrown) {
      throw new StatementFailure({ file, sql, statement }, thrown);
    }
  }
}

class StatementFailure extends Error {
  readonly failed: FailedStatement;

  constructor(failed: FailedStatement, cause: unknown) {
    super(messageOf(cause), { cause });
    this.failed = failed;
  }
}

function asFailure(
  { file, sql }: SqlFile,
  thrown: unknown,
): { readonly failed: FailedStatement; readonly cause: unknown } {
  if (thrown instanceof StatementFailure) return { failed: thrown.failed, cause: thrown.cause };
  return { failed: { file, sql, statement: null }, cause: thrown };
}

function sqlErrorOf(thrown: unknown): SqlError {
  const sent = databaseErrorOf(thrown);
  return {
    code: sent?.code ?? null,
    message: messageOf(thrown),
    detail: sent?.detail ?? null,
    hint: sent?.hint ?? null,
    position: sent?.position === undefined ? null : Number(sent.position),
  };
}
