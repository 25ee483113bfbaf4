import { readFile } from "node:fs/promises";
import { HOURS_BACK } from "../../billing/deduction.ts";
import { type DepositStanding, readDepositStanding } from "../../billing/deposit-standing.ts";
import { type BilledHour, type BillingStanding, listHours, readStanding } from "../../billing/runs.ts";
import type { Cluster, PeerIdentity, PeerMetric } from "../../cluster/client.ts";
import { readSpace } from "../../cluster/kubo-space.ts";
import type { PostgresPool } from "../../database/postgres.ts";
import { OperatorError } from "../../errors.ts";
import { type PoolTrust, readPoolTrust } from "../../federation/pool-trust.ts";
import { readOwners } from "../../federation/registry.ts";
import type { HttpReader } from "../../machine/http.ts";
import type { WebuiSettings } from "../../settings/services.ts";
import type { SpaceReading } from "../../settings/space-limits.ts";
import { describeFault, type HealthReport, NoAnswer, withDeadline } from "../health.ts";

/** What became of one question. A late one is not the same as one that was refused. */
export type Answer<Value> =
  | { readonly kind: "answer"; readonly value: Value }
  | { readonly kind: "late" }
  | { readonly kind: "fault"; readonly why: string };

type HttpAnswer = Awaited<ReturnType<HttpReader["json"]>>;

/** What the page is made of: one answer for each question. */
export interface Answers {
  readonly at: Date;
  readonly own: Answer<HealthReport>;
  readonly database: Answer<DatabaseFacts>;
  readonly pins: Answer<PinCounts>;
  /** Who belongs to the pool, and who trusts whom. */
  readonly trust: Answer<PoolTrust>;
  /** The storage nodes with a registered name. */
  readonly owners: Answer<Awaited<ReturnType<typeof readOwners>>>;
  readonly standing: Answer<BillingStanding | null>;
  readonly deposits: Answer<DepositStanding | null>;
  readonly hours: Answer<readonly BilledHour[]>;
  readonly identity: Answer<PeerIdentity>;
  readonly peers: Answer<readonly PeerIdentity[]>;
  readonly pings: Answer<readonly PeerMetric[]>;
  readonly freeSpace: Answer<readonly PeerMetric[]>;
  readonly kubo: Answer<HttpAnswer>;
  readonly space: Answer<SpaceReading | null>;
  readonly pinningHealth: Answer<HttpAnswer>;
  readonly pinningRoute: Answer<HttpAnswer>;
  /** Null if this master has no edge. */
  readonly edge: Answer<HttpAnswer> | null;
  readonly records: Readonly<Record<RecordName, Answer<string | null>>>;
}

/** A file in which cron's operations record their runs. */
export type RecordName = "snapshot" | "snapshot-history" | "sweep" | "sweep-history";

/** The database itself. */
export interface DatabaseFacts extends Record<string, unknown> {
  readonly version: string;
  readonly bytes: number;
  /** The newest migration; null if there is no ledger. */
  readonly schema: number | null;
}

/** How many pin requests have each status. */
export interface PinCounts extends Record<string, unknown> {
  readonly queued: number;
  readonly pinning: number;
  readonly pinned: number;
  readonly failed: number;
}

/** Whom the page asks. */
export interface PageSources {
  readonly settings: Pick<WebuiSettings, "statusPage" | "pool" | "billing">;
  readonly pool: Pick<PostgresPool, "query">;
  readonly http: HttpReader;
  /** The client for the master's own cluster peer. It is called for each question, and may throw. */
  readonly cluster: () => Pick<Cluster, "identity" | "peers" | "metrics">;
  readonly health: () => Promise<HealthReport>;
}

/** How long one question may take: less than any person waits, and more than a database under load needs. */
export const QUESTION_MS = 4_000;
/** The answer of the edge that its container's healthcheck asks for, too. */
const EDGE_URL = "http://127.0.0.1/fula-edge/health";
const HOURS = 24;

/** Asks everything side by side, so that all of it takes as long as the slowest question. Never throws. */
export async function askAll(sources: PageSources): Promise<Answers> {
  const { settings, pool, http, health, cluster } = sources;
  const { kuboUrl, pinningUrl, hasEdge, recordsDir } = settings.statusPage;
  // What takes that long is late, and not a server that is down.
  const timeoutMs = 2 * QUESTION_MS;
  const database: Pick<PostgresPool, "query"> = {
    query: (text, values, options) => pool.query(text, values, { timeoutMs, ...options }),
  };
  const one = async <Row extends Record<string, unknown>>(text: string): Promise<Row> => {
    const [row] = await database.query<Row>(text);
    if (row === undefined) throw new Error("the database gave no row");
    return row;
  };
  const record = (name: RecordName) => ask(() => readRecord(recordsDir, name));
  const isBilling = settings.billing?.idempotent === true;
  const asked = settle({
    own: ask(health),
    database: ask(() => one<DatabaseFacts>(DATABASE)),
    pins: ask(() => one<PinCounts>(PINS)),
    trust: ask(() => readPoolTrust(database, settings.pool ?? "")),
    owners: ask(() => readOwners((text, values) => database.query(text, values), settings.pool ?? "")),
    standing: ask(async () => (isBilling ? await readStanding(database, HOURS_BACK) : null)),
    deposits: ask(async () => (isBilling ? await readDepositStanding(database) : null)),
    hours: ask(async () => (isBilling ? await listHours(database, HOURS) : [])),
    identity: ask(async () => cluster().identity()),
    peers: ask(async () => cluster().peers()),
    pings: ask(async () => cluster().metrics("ping")),
    freeSpace: ask(async () => cluster().metrics("freespace")),
    kubo: ask(() => http.json(`${kuboUrl}/api/v0/id`, { method: "POST", timeoutMs })),
    space: ask(() => readSpace(http, kuboUrl)),
    pinningHealth: ask(() => http.json(`${pinningUrl}/health`, { timeoutMs })),
    pinningRoute: ask(() => http.json(`${pinningUrl}${PINNING_ROUTE}`, { timeoutMs })),
    edge: hasEdge ? ask(() => http.json(EDGE_URL, { timeoutMs })) : null,
    records: settle({
      snapshot: record("snapshot"),
      "snapshot-history": record("snapshot-history"),
      sweep: record("sweep"),
      "sweep-history": record("sweep-history"),
    }),
  });
  return { ...(await asked), at: new Date() };
}

/** Waits for all of them. */
async function settle<Asked extends Readonly<Record<string, unknown>>>(
  asked: Asked,
): Promise<{ readonly [Name in keyof Asked]: Awaited<Asked[Name]> }> {
  const found = await Promise.all(
    Object.entries(asked).map(async ([name, answer]) => [name, await answer] as const),
  );
  return Object.fromEntries(found) as { readonly [Name in keyof Asked]: Awaited<Asked[Name]> };
}

/** A route of the pinning API that does its work. Without a key it must answer 401. */
export const PINNING_ROUTE = "/pins?limit=1";

async function ask<Value>(question: () => Promise<Value>): Promise<Answer<Value>> {
  try {
    return { kind: "answer", value: await withDeadline(question(), QUESTION_MS) };
  } catch (thrown) {
    if (thrown instanceof NoAnswer) return { kind: "late" };
    return { kind: "fault", why: thrown instanceof OperatorError ? thrown.what : describeFault(thrown) };
  }
}

async function readRecord(directory: string | null, name: RecordName): Promise<string | null> {
  if (directory === null) throw new Error("RECORDS_DIR is not set: this service does not see cron's records");
  try {
    return await readFile(`${directory}/${name}.json`, "utf8");
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw thrown;
  }
}

const DATABASE = `
  SELECT split_part(current_setting('server_version'), ' ', 1) AS version,
    pg_database_size(current_database())::float8 AS bytes,
    (SELECT max(version) FROM fula_node.migrations WHERE state = 'applied') AS schema`;

/** The numbers that triggers keep by account (028_account_pins.sql): pins are not counted for each look. */
const PINS = `
  SELECT coalesce(sum(queued), 0)::float8 AS queued, coalesce(sum(pinning), 0)::float8 AS pinning,
    coalesce(sum(pinned), 0)::float8 AS pinned, coalesce(sum(failed), 0)::float8 AS failed
  FROM account_pins`;
