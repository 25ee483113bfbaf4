import { messageOf } from "../errors.ts";

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
