import { readStanding } from "../billing/runs.ts";
import { HOURS_BACK } from "../billing/deduction.ts";
import { databaseErrorOf } from "../database/session.ts";
import { OperatorError } from "../errors.ts";
import { readPoolTrust } from "../federation/pool-trust.ts";
import { readWriterTrust } from "../federation/writer-trust.ts";
import type { HostReader } from "../host.ts";
import type { Values } from "../settings/context.ts";
import { isDatabaseElsewhere, postgresTarget } from "../settings/postgres-target.ts";
import type { Ask } from "./look-at-node.ts";
import { judgeMasters } from "./judge-master.ts";
import { type Judged, LATE } from "./part.ts";

/**
 * The masters of the pool: when each was last heard of, who leads the billing, and who does not trust whom yet. Null if this
 * is the only master that the pool ever had.
 */
export async function lookAtMasters(
  host: HostReader,
  { values, ask }: { readonly values: Values; readonly ask: Ask },
): Promise<Judged | null> {
  const target = postgresTarget(values);
  const ownId = values("MASTER_ID");
  if (target === null || ownId === undefined) return null;
  const database = {
    query: <Row extends Record<string, unknown>>(sql: string, parameters: readonly unknown[] = []) =>
      host.postgres.query<Row>(target, sql, parameters),
  };
  const pool = values("CLUSTERNAME") ?? "";
  const [trust, standing, writer] = await Promise.all([
    ask(() => readPoolTrust(database, pool)).catch(unlessBug),
    ask(() => readStanding(database, HOURS_BACK)).catch(unlessBug),
    ask(() => readWriterTrust(host)).catch(unlessBug),
  ]);
  if (trust === OLDER) return null;
  const mayHaveOthers = isDatabaseElsewhere(values) || values("MASTER_CLUSTER_PEERIDS") !== undefined;
  if (trust === LATE || trust === UNREAD || writer === LATE || writer === UNREAD || writer === OLDER) {
    const summary =
      trust === LATE || writer === LATE
        ? "the database or Docker did not answer in time"
        : "the database can't be read: see its line";
    return mayHaveOthers ? { state: "unknown", summary, todo: null, evidence: {} } : null;
  }
  const leader = standing !== null && typeof standing === "object" ? standing.leader : null;
  return judgeMasters({ trust, writer, ownId, leader });
}

const UNREAD = Symbol("unread");
const OLDER = Symbol("older");

/** The database can't be read, or its schema is older. A bug is thrown on. */
function unlessBug(thrown: unknown): typeof UNREAD | typeof OLDER {
  if (databaseErrorOf(thrown)?.code === "42P01") return OLDER;
  if (thrown instanceof OperatorError) return UNREAD;
  throw thrown;
}
