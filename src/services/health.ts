import { messageOf } from "../errors.ts";
import type { PostgresPool } from "../database/postgres.ts";
import { connectionFaultOf } from "../database/connection-fault.ts";
import type { ClusterSettings } from "../settings/services.ts";
import { json } from "./server.ts";
import type { HttpReader } from "../machine/http.ts";

/** Asks one thing that the service needs; throws a sentence without secrets where it does not work. */
export type Check = (timeoutMs: number) => Promise<void>;

/** What one check found. */
interface CheckResult {
  readonly ok: boolean;
  /** How long it took. */
  readonly ms: number;
  readonly error?: string;
}

/** The body of `GET /health`. */
export interface HealthReport {
  readonly status: "ok" | "degraded";
  readonly version: string;
  readonly checks: Readonly<Record<string, CheckResult>>;
}

/** How long a check may take: well below the timeout of the container's healthcheck. */
const CHECK_TIMEOUT_MS = 3_000;

/**
 * Makes the function that asks everything at once. Requests that come while it asks share the answer, so
 * that impatient callers don't pile up on a sick database. A change for better or worse is logged.
 */
export function createHealth(options: {
  readonly version: string;
  readonly checks: Readonly<Record<string, Check>>;
  readonly log: (line: string) => void;
  readonly timeoutMs?: number;
}): () => Promise<HealthReport> {
  const { version, checks, log, timeoutMs = CHECK_TIMEOUT_MS } = options;
  let underWay: Promise<HealthReport> | null = null;
  let told = "";

  async function ask(): Promise<HealthReport> {
    const results = await Promise.all(
      Object.entries(checks).map(async ([name, check]) => [name, await run(check, timeoutMs)] as const),
    );
    const failures = results.flatMap(([name, { error }]) =>
      error === undefined ? [] : [`${name}: ${error}`],
    );
    const summary = failures.length === 0 ? "health: ok" : `health: degraded, ${failures.join("; ")}`;
    if (summary !== told) log(summary);
    told = summary;
    const status = failures.length === 0 ? "ok" : "degraded";
    return { status, version, checks: Object.fromEntries(results) };
  }

  return () => {
    underWay ??= ask().finally(() => {
      underWay = null;
    });
    return underWay;
  };
}

/** The answer to `GET /health`: 503 while something does not work. */
export function healthAnswer(report: HealthReport): Response {
  return json(healthStatus(report), report);
}

/** The HTTP status of a report. */
export function healthStatus({ status }: Pick<HealthReport, "status">): number {
  return status === "ok" ? 200 : 503;
}

async function run(check: Check, timeoutMs: number): Promise<CheckResult> {
  const began = performance.now();
  const elapsed = (): number => Math.round(performance.now() - began);
  try {
    await withDeadline(check(timeoutMs), timeoutMs);
    return { ok: true, ms: elapsed() };
  } catch (error) {
    return { ok: false, ms: elapsed(), error: describe(error) };
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

/** Node tells a host with several addresses by an AggregateError without a message. */
function describe(error: unknown): string {
  if (error instanceof AggregateError && error.message === "") {
    return [...new Set(error.errors.map(messageOf))].join(", ");
  }
  return messageOf(error) || "it failed without a word";
}

/** Asks the database for a row. */
export function checkPostgres(pool: Pick<PostgresPool, "query">): Check {
  return async (timeoutMs) => {
    await pool.query("SELECT 1", [], { timeoutMs });
  };
}

/**
 * Asks the ipfs-cluster peer who it is (`GET /id`). It answers 200 although its kubo is gone, and then
 * says so in `ipfs.error` (ipfs-cluster 1.1.6): that counts as failed, since nothing can be pinned.
 */
export function checkCluster(http: HttpReader, cluster: ClusterSettings): Check {
  return async (timeoutMs) => {
    const options = cluster.basicAuth === null ? { timeoutMs } : { timeoutMs, basicAuth: cluster.basicAuth };
    const answer = await http.json(`${cluster.url}/id`, options);
    if (answer === null) throw new Error(`nothing answers at ${cluster.url}`);
    if (answer.status !== 200) throw new Error(`${cluster.url}/id answers ${answer.status}`);
    const { id, error, ipfs } = (answer.body ?? {}) as {
      readonly id?: unknown;
      readonly error?: unknown;
      readonly ipfs?: { readonly error?: unknown };
    };
    if (typeof id !== "string" || id === "") throw new Error(`${cluster.url} is no ipfs-cluster peer`);
    if (isText(error)) throw new Error(error);
    if (isText(ipfs?.error)) throw new Error(`its kubo does not answer: ${ipfs.error}`);
  };
}

function isText(value: unknown): value is string {
  return typeof value === "string" && value !== "";
}

/**
 * Says "try again" where the database is away or not ready, which is nobody's mistake; the log says why.
 * Anything else that is thrown stays thrown.
 */
export async function whileDatabaseAnswers(
  log: (line: string) => void,
  work: () => Promise<Response>,
): Promise<Response> {
  try {
    return await work();
  } catch (thrown) {
    if (connectionFaultOf(thrown) === null && !isUnmigrated(thrown)) throw thrown;
    log(`the database did not answer: ${messageOf(thrown)}`);
    return json(503, { error: "The database does not answer; try again." }, { "retry-after": "5" });
  }
}

/** True for a table that no migration has made yet. */
function isUnmigrated(thrown: unknown): boolean {
  return thrown instanceof Error && "severity" in thrown && "code" in thrown && thrown.code === "42P01";
}
