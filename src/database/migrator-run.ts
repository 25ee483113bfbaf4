import type { Client } from "pg";
import { messageOf, type Problem } from "../errors.ts";
import { markAdopted, markApplied, markApplying, markFailed, markReverted } from "./ledger.ts";
import {
  type FailedStatement,
  guardRefusal,
  migrationFailed,
  revertFailed,
  type SqlError,
  summariseFailure,
} from "./migration-failure.ts";
import { guardsOf, type Migration, splitStatements, type Statement } from "./migration-file.ts";
import type { MigrationAction } from "./migration-plan.ts";
import { databaseErrorOf } from "./session.ts";

/** The limit for waiting for a table lock. While this waits, every later query on that table also waits. */
const LOCK_TIMEOUT = "SET LOCAL lock_timeout = '30s'";

/** Runs one action in the session that holds the lock. Throws an OperatorError if it fails. */
export async function runAction(
  client: Client,
  migration: Migration,
  action: Exclude<MigrationAction, "none">,
  toolVersion: string,
): Promise<void> {
  if (action === "adopt") return markAdopted(client, migration, toolVersion);
  await markApplying(client, migration, toolVersion);
  try {
    if (migration.recovery === null) {
      await inTransaction(client, () => [
        ...sendStatements(client, migration),
        markApplied(client, migration),
      ]);
      return;
    }
    if (action === "clear-and-retry") await client.query(migration.recovery.clear);
    await runStatements(client, migration);
  } catch (thrown) {
    const { failed, cause } = asFailure(migration, thrown);
    const error = sqlErrorOf(cause);
    // Without a connection the row stays `applying`; the next run handles that too.
    await markFailed(client, migration, summariseFailure(failed, error)).catch(() => {});
    const effect =
      migration.recovery === null
        ? "its changes were rolled back"
        : "the next run removes what it left behind";
    throw migrationFailed(failed, error, { effect, cause });
  }
  await markApplied(client, migration);
}

/** A migration to revert, with its down file. */
export interface Revert {
  readonly migration: Migration;
  readonly down: NonNullable<Migration["down"]>;
}

/** Runs down files and marks their migrations as reverted, in one transaction. */
export async function revertAll(client: Client, reverts: readonly Revert[]): Promise<void> {
  try {
    await inTransaction(client, () =>
      reverts.flatMap(({ migration, down }) => [
        ...sendStatements(client, down),
        markReverted(client, migration),
      ]),
    );
  } catch (thrown) {
    const [first] = reverts;
    if (first === undefined) throw thrown;
    const { failed, cause } = asFailure(first.down, thrown);
    const effect = "the down file runs in one transaction, which was rolled back";
    throw revertFailed(failed, sqlErrorOf(cause), { effect, cause });
  }
}

/**
 * Asks the guards of a down file whether it would refuse now, in a session that may only read. Each is a transaction of its own, so it holds
 * no lock for the next. Throws if one can't be asked.
 */
export async function askGuards(client: Client, down: Revert["down"]): Promise<readonly Problem[]> {
  const refusals: Problem[] = [];
  for (const statement of guardsOf(down.sql)) {
    try {
      await runStatement(client, down, statement);
    } catch (thrown) {
      const { failed, cause } = asFailure(down, thrown);
      const error = sqlErrorOf(cause);
      const refusal = guardRefusal(failed, error);
      const effect = "the down file was only asked whether it would refuse";
      if (refusal === null) throw revertFailed(failed, error, { effect, cause });
      refusals.push(refusal);
    }
  }
  return refusals;
}

interface SqlFile {
  readonly file: string;
  readonly sql: string;
}

/** Sends the work's statements in one transaction. */
async function inTransaction(client: Client, send: () => readonly Promise<void>[]): Promise<void> {
  await client.query(`BEGIN; ${LOCK_TIMEOUT}`);
  try {
    // Sent without waiting for answers in between: after a statement that fails PostgreSQL refuses all that follow, and
    // COMMIT ends such a transaction as ROLLBACK does.
    await Promise.all([...send(), client.query("COMMIT")]);
  } catch (thrown) {
    // If the connection is lost, PostgreSQL has already rolled the transaction back.
    await client.query("ROLLBACK").catch(() => {});
    throw thrown;
  }
}

/** Runs the statements one by one: outside a transaction, nothing else prevents a statement from running after one that failed. */
async function runStatements(client: Client, file: SqlFile): Promise<void> {
  for (const statement of splitStatements(file.sql)) await runStatement(client, file, statement);
}

/** Sends each statement by itself, so that an error can name its line. The first one that fails is answered first. */
function sendStatements(client: Client, file: SqlFile): readonly Promise<void>[] {
  return splitStatements(file.sql).map((statement) => runStatement(client, file, statement));
}

async function runStatement(client: Client, { file, sql }: SqlFile, statement: Statement): Promise<void> {
  try {
    await client.query(statement.text);
  } catch (thrown) {
    throw new StatementFailure({ file, sql, statement }, thrown);
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
