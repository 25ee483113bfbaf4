import { messageOf, OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import type { PostgresTarget } from "../settings/postgres-target.ts";
import { countOf } from "../units.ts";
import { canPass, describeRefusal } from "./connection-fault.ts";
import type { MasterRow } from "./masters.ts";
import type { MigrationStatus } from "./migration-plan.ts";
import type { PostgresAnswer } from "./postgres.ts";

/** What was read of a master's database. Null: it was not reached that far. */
export interface DatabaseFacts {
  readonly target: PostgresTarget;
  readonly answer: PostgresAnswer;
  /** An error if the ledger and the tables do not match, or can't be read. */
  readonly schema: MigrationStatus | OperatorError | null;
  readonly masters: readonly MasterRow[] | null;
}

/** The state of the database in a sentence, and what to do about it. */
export interface DatabaseState {
  readonly state: "ok" | "attention" | "down" | "unknown";
  readonly sentence: string;
  readonly todo: string | null;
}

/** Reads the state of a database: whether it opens, its migrations with the tables that they made, and its masters. */
export async function readDatabaseFacts(
  { postgres, migrations }: Pick<HostReader, "postgres" | "migrations">,
  target: PostgresTarget,
): Promise<DatabaseFacts> {
  const answer = await postgres.ask(target);
  if (answer.kind !== "open") return { target, answer, schema: null, masters: null };
  const [schema, masters] = await Promise.all([
    orError(() => migrations.status(target)),
    orError(() => migrations.readMasters(target)),
  ]);
  // A table of masters that can't be read shows in the schema too.
  return { target, answer, schema, masters: masters instanceof OperatorError ? null : masters };
}

async function orError<T>(read: () => Promise<T>): Promise<T | OperatorError> {
  try {
    return await read();
  } catch (thrown) {
    if (thrown instanceof OperatorError) return thrown;
    return new OperatorError({ exit: "unavailable", what: messageOf(thrown), cause: thrown });
  }
}

/** The services beat every minute (masters.ts), that of an older version every five: after three of those it counts as silent. */
const SILENT_AFTER_MS = 16 * 60_000;

/** Judges what was read. `id` is this master's MASTER_ID. */
export function judgeDatabase(
  { target, answer, schema, masters }: DatabaseFacts,
  { id }: { readonly id: string | null },
): DatabaseState {
  if (answer.kind !== "open") {
    const { what, remedy = null } = describeRefusal(target, answer);
    const isRecovering = answer.kind === "not-ready" || (canPass(answer) && answer.kind === "exhausted");
    return { state: isRecovering ? "attention" : "down", sentence: what, todo: remedy };
  }
  if (schema === null) return { state: "unknown", sentence: "Its migrations were not read.", todo: null };
  if (schema instanceof OperatorError) {
    const state = schema.exit === "unavailable" ? "unknown" : "down";
    return { state, sentence: schema.what, todo: schema.remedy ?? null };
  }
  if (schema.running !== null) {
    const sentence = `It is being migrated since ${schema.running.since}.`;
    return { state: "attention", sentence, todo: "Wait until that run ends." };
  }
  if (schema.pending > 0) {
    const sentence = `${countOf(schema.pending, "migration")} not applied.`;
    return { state: "attention", sentence, todo: "fula-node migrate up" };
  }
  const own = masters?.find((one) => one.id === id);
  if (masters !== null && own === undefined) {
    const sentence = "This master is not recorded in it.";
    return { state: "attention", sentence, todo: "fula-node join-as-master" };
  }
  if (own !== undefined && own.heartbeatAgeMs > SILENT_AFTER_MS) {
    const sentence = `The services of this master last wrote to it at ${own.heartbeatAt}.`;
    return { state: "attention", sentence, todo: "docker logs fula-pinning-webui" };
  }
  const others = (masters ?? []).filter((one) => one.id !== id && one.machine !== null).length;
  const company = others === 0 ? "" : `, shared with ${countOf(others, "other master")}`;
  const sentence = `Postgres ${answer.serverVersion}, ${countOf(schema.items.length, "migration")} applied${company}`;
  return { state: "ok", sentence, todo: null };
}
