import type { Client, ClientConfig, DatabaseError, Pool } from "pg";
import { messageOf, OperatorError } from "../errors.ts";
import type { PostgresTarget } from "../settings/master.ts";
import type { PoolSettings } from "../settings/services.ts";
import { connectionFaultOf, isPassing } from "./connection-fault.ts";

/** Whether a database lets us in, told apart because each has another way out. */
export type PostgresAnswer =
  | { readonly kind: "open"; readonly serverVersion: string; readonly systemIdentifier: string }
  | { readonly kind: "wrong-password" }
  | { readonly kind: "no-database" }
  | { readonly kind: "unreachable"; readonly why: string };

/** Looks into Postgres over the network, in sessions that Postgres itself holds read-only. */
export interface PostgresReader {
  ask(target: PostgresTarget): Promise<PostgresAnswer>;
  query<Row extends Record<string, unknown>>(
    target: PostgresTarget,
    sql: string,
    values?: readonly unknown[],
  ): Promise<readonly Row[]>;
}

/** The real PostgresReader: a short-lived session per call, held read-only by PostgreSQL. */
export function createPostgres(options: Pick<SessionOptions, "connectTimeoutMs"> = {}): PostgresReader {
  const session: SessionOptions = {
    ...options,
    applicationName: "fula-node",
    readOnly: true,
    statementTimeoutMs: 30_000,
  };
  return {
    async ask(target) {
      const { client, refusal } = await openSession(target, session);
      if (client === null) return refusal;
      try {
        return { kind: "open", ...(await identify(client)) };
      } catch (thrown) {
        return { kind: "unreachable", why: messageOf(thrown) };
      } finally {
        await client.end().catch(() => {});
      }
    },

    query<Row extends Record<string, unknown>>(
      target: Parameters<PostgresReader["query"]>[0],
      sql: string,
      values: readonly unknown[] = [],
    ): Promise<readonly Row[]> {
      // The extended protocol takes one statement only: nothing can switch read-only off and go on.
      const extended = { text: sql, values: [...values], queryMode: "extended" };
      return withSession(target, session, async (client) => (await client.query<Row>(extended)).rows);
    },
  };
}

/**
 * The system identifier tells one data directory from another. It is "" where the role may not call
 * pg_control_system(): any role may by default, but a provider can revoke that.
 */
async function identify(client: Client): Promise<{ serverVersion: string; systemIdentifier: string }> {
  const version = await client.query<{ v: string }>("SELECT current_setting('server_version') AS v");
  const serverVersion = version.rows[0]?.v ?? "";
  try {
    const control = await client.query<{ id: string }>(
      "SELECT system_identifier::text AS id FROM pg_control_system()",
    );
    return { serverVersion, systemIdentifier: control.rows[0]?.id ?? "" };
  } catch (thrown) {
    if (databaseErrorOf(thrown)?.code === "42501") return { serverVersion, systemIdentifier: "" };
    throw thrown;
  }
}

/** How a session is opened. */
export interface SessionOptions {
  /** What `pg_stat_activity` shows. */
  readonly applicationName: string;
  /** True: PostgreSQL itself refuses every write in this session. */
  readonly readOnly: boolean;
  /** Milliseconds until a statement is cancelled; 0 lets it run. */
  readonly statementTimeoutMs: number;
  /** Milliseconds until an attempt to connect is given up; 5000 unless told. */
  readonly connectTimeoutMs?: number;
}

/** Why a session could not be had. */
type Refusal = Exclude<PostgresAnswer, { readonly kind: "open" }>;

const CONNECT_TIMEOUT_MS = 5_000;

/**
 * Opens one session, or says why it can't be had. The driver is loaded with the first session, so that commands
 * without a database start without it. With `ssl` the server's certificate is not checked, as POSTGRES_SSL always had it.
 */
async function openSession(
  target: PostgresTarget,
  options: SessionOptions,
): Promise<
  { readonly client: Client; readonly refusal: null } | { readonly client: null; readonly refusal: Refusal }
> {
  const { Client: Session } = await import("pg");
  const client = new Session(configOf(target, options));
  // A connection that breaks while idle is told by the next query; unheard, the event would end the process.
  client.on("error", () => {});
  try {
    await client.connect();
    return { client, refusal: null };
  } catch (thrown) {
    await client.end().catch(() => {});
    return { client: null, refusal: refusalOf(target, thrown) };
  }
}

/**
 * Runs `work` in one session and closes it. Throws an OperatorError where no session can be had:
 * `settings` for a wrong password or database name, else `unavailable`; and `unavailable` where the session breaks off.
 */
export async function withSession<Result>(
  target: PostgresTarget,
  options: SessionOptions,
  work: (client: Client) => Promise<Result>,
): Promise<Result> {
  const { client, refusal } = await openSession(target, options);
  if (client === null) throw refused(target, refusal);
  try {
    return await work(client);
  } catch (thrown) {
    throw isPassing(connectionFaultOf(thrown)) ? brokenOff(target, thrown) : thrown;
  } finally {
    await client.end().catch(() => {});
  }
}

/** The fields of an error that PostgreSQL itself sent; null for any other one. */
export function databaseErrorOf(thrown: unknown): DatabaseError | null {
  const sent = thrown instanceof Error && "severity" in thrown && "code" in thrown;
  return sent ? (thrown as DatabaseError) : null;
}

/** The operator's error for a session that can't be had. */
function refused(target: PostgresTarget, refusal: Refusal): OperatorError {
  const where = `PostgreSQL at ${target.host}:${target.port}`;
  if (refusal.kind === "wrong-password") {
    return new OperatorError({
      exit: "settings",
      what: `${where} refuses user "${target.user}" for database "${target.database}".`,
      why: "POSTGRES_USER and POSTGRES_PASSWORD do not open this database.",
      remedy: "Put the password with which the database was made into POSTGRES_PASSWORD.",
    });
  }
  if (refusal.kind === "no-database") {
    return new OperatorError({
      exit: "settings",
      what: `${where} has no database "${target.database}".`,
      remedy: "Correct POSTGRES_DB, or create that database.",
    });
  }
  return new OperatorError({
    exit: "unavailable",
    what: `${where} can't be reached: ${refusal.why}.`,
    remedy: "See that PostgreSQL runs and that POSTGRES_HOST and POSTGRES_PORT are right, then run again.",
  });
}

function configOf(target: PostgresTarget, options: SessionOptions): ClientConfig {
  const settings = [`statement_timeout=${options.statementTimeoutMs}`];
  if (options.readOnly) settings.push("default_transaction_read_only=on");
  return {
    host: target.host,
    port: target.port,
    database: target.database,
    user: target.user,
    password: target.password,
    ssl: target.ssl ? { rejectUnauthorized: false } : false,
    application_name: options.applicationName,
    connectionTimeoutMillis: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
    keepAlive: true,
    options: settings.map((setting) => `-c ${setting}`).join(" "),
  };
}

function refusalOf(target: PostgresTarget, thrown: unknown): Refusal {
  const fault = connectionFaultOf(thrown);
  if (fault === "not-admitted") return { kind: "wrong-password" };
  if (fault === "no-database") return { kind: "no-database" };
  // Without a password to send, the driver gives up before the server can refuse it.
  if (target.password === "" && /password must be/.test(messageOf(thrown))) return { kind: "wrong-password" };
  return { kind: "unreachable", why: whyUnreachable(thrown) };
}

function whyUnreachable(thrown: unknown): string {
  if (thrown instanceof AggregateError && thrown.errors.length > 0) {
    return thrown.errors.map(messageOf).join(", ");
  }
  return messageOf(thrown);
}

function brokenOff(target: PostgresTarget, cause: unknown): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `PostgreSQL at ${target.host}:${target.port} broke off: ${messageOf(cause)}.`,
    remedy: "See that PostgreSQL runs and is not overloaded, then run again.",
    cause,
  });
}

/** A service's connections to its database. */
export interface PostgresPool {
  /**
   * Runs one statement on a connection of the pool. After `timeoutMs` it is given up and its connection
   * closed. Throws what Postgres or the network says; the password is never in it.
   */
  query<Row extends Record<string, unknown>>(
    sql: string,
    values?: readonly unknown[],
    options?: { readonly timeoutMs?: number },
  ): Promise<readonly Row[]>;
  /** Waits for statements under way, then closes every connection. */
  close(): Promise<void>;
}

/**
 * Opens no connection and loads no driver yet: the first statement does, and each later one tries again
 * where the database was away. With `ssl` the server's certificate is not checked, as POSTGRES_SSL always
 * had it.
 */
export function openPostgresPool(settings: PoolSettings, options: PoolOptions): PostgresPool {
  let opened: Promise<Pool> | null = null;
  return {
    async query<Row extends Record<string, unknown>>(
      sql: string,
      values: readonly unknown[] = [],
      { timeoutMs }: { readonly timeoutMs?: number } = {},
    ) {
      opened ??= open(settings, options);
      const limit = timeoutMs === undefined ? {} : { query_timeout: timeoutMs };
      const { rows } = await (await opened).query<Row>({ text: sql, values: [...values], ...limit });
      return rows;
    },
    async close() {
      await (await opened)?.end();
    },
  };
}

interface PoolOptions {
  /** What `pg_stat_activity` shows. */
  readonly applicationName: string;
  readonly log: (line: string) => void;
}

async function open(settings: PoolSettings, { applicationName, log }: PoolOptions): Promise<Pool> {
  const { default: pg } = await import("pg");
  const pool = new pg.Pool({
    host: settings.host,
    port: settings.port,
    database: settings.database,
    user: settings.user,
    password: settings.password,
    ssl: settings.ssl ? { rejectUnauthorized: false } : false,
    max: settings.maxConnections,
    idleTimeoutMillis: settings.idleTimeoutMs,
    connectionTimeoutMillis: settings.connectTimeoutMs,
    application_name: applicationName,
    keepAlive: true,
  });
  pool.on("error", (error) => log(`an idle database connection broke: ${messageOf(error)}`));
  return pool;
}
