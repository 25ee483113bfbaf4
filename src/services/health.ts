import { codeOfServer, connectionFaultOf, lacksRowNumbers } from "../database/connection-fault.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { WRITE_FAULTS, type WriteWatch, writeError, writeFaultOf } from "../database/writable.ts";
import { type Log, messageOf, OperatorError } from "../errors.ts";
import type { HttpReader } from "../machine/http.ts";
import type { ClusterSettings } from "../settings/services.ts";
import { failure, type GaugeSource, json } from "./server.ts";

/** Checks one dependency of the service. If it does not work, throws an error whose message has no secrets. */
export type Check = (timeoutMs: number) => Promise<void>;

/** The result of one check. */
interface CheckResult {
  readonly ok: boolean;
  /** The duration. */
  readonly ms: number;
  readonly error?: string;
  /** What the operator can do about the error, if that is known. */
  readonly remedy?: string;
}

/** The body of `GET /health`. */
export interface HealthReport {
  readonly status: "ok" | "degraded";
  readonly version: string;
  readonly checks: Readonly<Record<string, CheckResult>>;
}

/** Runs all checks at once. */
export interface Health {
  (): Promise<HealthReport>;
  /** The last result, and when it was had; null: none yet. */
  last(): { readonly report: HealthReport; readonly at: Date } | null;
}

/** How long a check may take: well below the timeout of the container's healthcheck. */
const CHECK_TIMEOUT_MS = 3_000;

/**
 * Creates the function that runs all checks at once. Requests during a run share its result, so that frequent
 * callers do not overload a failing database. Every change of the result is logged.
 */
export function createHealth(options: {
  readonly version: string;
  readonly checks: Readonly<Record<string, Check>>;
  readonly log: Log;
  readonly timeoutMs?: number;
}): Health {
  const { version, checks, log, timeoutMs = CHECK_TIMEOUT_MS } = options;
  let inFlight: Promise<HealthReport> | null = null;
  let last: ReturnType<Health["last"]> = null;
  let lastLogged = "";

  async function runChecks(): Promise<HealthReport> {
    const results = await Promise.all(
      Object.entries(checks).map(async ([name, check]) => [name, await run(check, timeoutMs)] as const),
    );
    const failures = results.flatMap(([name, { error }]) =>
      error === undefined ? [] : [`${name}: ${error}`],
    );
    const summary = failures.length === 0 ? "health: ok" : `health: degraded, ${failures.join("; ")}`;
    if (summary !== lastLogged) log(summary, failures.length === 0 ? "info" : "warn");
    lastLogged = summary;
    const status = failures.length === 0 ? "ok" : "degraded";
    const report: HealthReport = { status, version, checks: Object.fromEntries(results) };
    last = { report, at: new Date() };
    return report;
  }

  const health = (): Promise<HealthReport> => {
    inFlight ??= runChecks().finally(() => {
      inFlight = null;
    });
    return inFlight;
  };
  return Object.assign(health, { last: () => last });
}

/** The response to `GET /health`: 503 while a check fails. `more` is added to the report. */
export function healthAnswer(report: HealthReport, more: Readonly<Record<string, unknown>> = {}): Response {
  return json(healthStatus(report), { ...report, ...more });
}

/** The HTTP status of a report. */
export function healthStatus({ status }: Pick<HealthReport, "status">): number {
  return status === "ok" ? 200 : 503;
}

/** What the checks last found, for the metrics: Docker asks for them all the time, a scrape does not. */
export function healthGauges({ last }: Pick<Health, "last">): readonly GaugeSource[] {
  return [
    {
      name: "fula_health_ok",
      help: "The last result of a check of /health: 1 if it was good, 0 if not.",
      label: "check",
      read() {
        const checks = Object.entries(last()?.report.checks ?? {});
        return Object.fromEntries(checks.map(([name, { ok }]) => [name, ok ? 1 : 0]));
      },
    },
    {
      name: "fula_health_checked_timestamp_seconds",
      help: "When the checks of /health last ran, in seconds since 1970; 0: not since the start.",
      read: () => (last()?.at.getTime() ?? 0) / 1_000,
    },
  ];
}

/** The connections of a service to the database, for its metrics. */
export function connectionGauge(pool: Pick<PostgresPool, "connections">): GaugeSource {
  return {
    name: "fula_database_connections",
    help: "Connections to the database: in use and idle; waiting: statements that wait for one.",
    label: "state",
    read() {
      const { open, idle, waiting } = pool.connections();
      return { used: open - idle, idle, waiting };
    },
  };
}

async function run(check: Check, timeoutMs: number): Promise<CheckResult> {
  const began = performance.now();
  const elapsed = (): number => Math.round(performance.now() - began);
  try {
    await withDeadline(check(timeoutMs), timeoutMs);
    return { ok: true, ms: elapsed() };
  } catch (error) {
    const remedy = error instanceof OperatorError ? error.remedy : undefined;
    return { ok: false, ms: elapsed(), error: describe(error), ...(remedy === undefined ? {} : { remedy }) };
  }
}

async function withDeadline(work: Promise<void>, timeoutMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
  });
  try {
    await Promise.race([work, deadline]);
  } finally {
    clearTimeout(timer);
  }
}

/** For a host with several addresses, node throws an AggregateError without a message. */
function describe(error: unknown): string {
  if (error instanceof AggregateError && error.message === "") {
    return [...new Set(error.errors.map(messageOf))].join(", ");
  }
  return messageOf(error) || "it failed without a message";
}

/**
 * Checks that the database answers, has these tables, and takes writes: without one of that the service does not do its
 * work.
 */
export function checkPostgres(
  { pool, check: checkWrites }: Pick<WriteWatch, "check"> & { readonly pool: Pick<PostgresPool, "query"> },
  tables: readonly string[],
): Check {
  return async (timeoutMs) => {
    const [seen] = await pool.query<{ lost: readonly string[]; readOnly: boolean }>(SEEN_SQL, [[...tables]], {
      timeoutMs,
    });
    if (seen === undefined) throw new Error("the database did not answer the question");
    const { lost, readOnly } = seen;
    if (lost.length > 0) throw new Error(`the database lacks the table ${lost.join(", ")}`);
    if (readOnly) throw writeError("read-only");
    await checkWrites(timeoutMs);
  };
}

const SEEN_SQL = `
  SELECT ARRAY(SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NULL) AS lost,
    current_setting('transaction_read_only') = 'on' AS "readOnly"`;

/**
 * Requests the identity of the ipfs-cluster peer (`GET /id`). The peer responds with 200 even if its kubo is down, and
 * reports that in `ipfs.error` (ipfs-cluster 1.1.6). That counts as failed, since nothing can be pinned.
 */
export function checkCluster(http: HttpReader, cluster: ClusterSettings): Check {
  return async (timeoutMs) => {
    const options = cluster.basicAuth === null ? { timeoutMs } : { timeoutMs, basicAuth: cluster.basicAuth };
    const answer = await http.json(`${cluster.url}/id`, options);
    if (answer === null) throw new Error(`no answer from ${cluster.url}`);
    if (answer.status !== 200)
      throw new Error(`${cluster.url}/id responded with HTTP status ${answer.status}`);
    const { id, error, ipfs } = (answer.body ?? {}) as {
      readonly id?: unknown;
      readonly error?: unknown;
      readonly ipfs?: { readonly error?: unknown };
    };
    if (typeof id !== "string" || id === "") throw new Error(`${cluster.url} is not an ipfs-cluster peer`);
    if (isText(error)) throw new Error(error);
    if (isText(ipfs?.error)) throw new Error(`its kubo does not respond: ${ipfs.error}`);
  };
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value !== "";
}

/**
 * Returns 503 ("try again") if the database is not reachable, not ready or too busy, and logs the reason.
 * `answer` makes the response in the form of the service. Rethrows every other error.
 */
export async function whileDatabaseAnswers(
  log: Log,
  work: () => Promise<Response>,
  answer: (error: string, headers: Readonly<Record<string, string>>) => Response = (error, headers) =>
    failure(503, "database-unavailable", error, {}, headers),
): Promise<Response> {
  try {
    return await work();
  } catch (thrown) {
    if (connectionFaultOf(thrown) === null && !isPassing(thrown)) throw thrown;
    const [line, error] = wordsOf(thrown);
    log(`${line}: ${messageOf(thrown)}`, "warn");
    return answer(error, { "retry-after": "5" });
  }
}

/** What a fault is, for the log and for the client. */
function wordsOf(thrown: unknown): readonly [line: string, error: string] {
  const unwritable = writeFaultOf(thrown);
  if (unwritable !== null) {
    const { what } = WRITE_FAULTS[unwritable];
    return [what, `${what}. Try again later.`];
  }
  if (lacksRowNumbers(thrown)) {
    const what = "a table of the database has no number for another row";
    return [`${what} (docs/billing.md#row-numbers)`, "The database takes no more rows. Try again later."];
  }
  const fault = LOST.includes(codeOfServer(thrown)) ? "lacks a table or function" : "does not respond";
  return [`the database ${fault}`, `The database ${fault}. Try again.`];
}

/** A table or function that does not exist: its migration has not run yet, or it was dropped (PostgreSQL's manual, appendix A). */
const LOST = ["42P01", "42883"];
/** A server that takes no writes now; a lock that was not free in time; a deadlock or conflict that PostgreSQL ended. */
const PASSING = [...LOST, "25006", "55P03", "40P01", "40001"];

function isPassing(thrown: unknown): boolean {
  return PASSING.includes(codeOfServer(thrown)) || lacksRowNumbers(thrown);
}
