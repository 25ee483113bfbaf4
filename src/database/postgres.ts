import type { Client, ClientConfig, DatabaseError, Pool } from "pg";
import { messageOf, OperatorError } from "../errors.ts";
import { shareInFlight } from "../machine/file-reader.ts";
import type { PostgresTarget } from "../settings/master.ts";
import type { PoolSettings } from "../settings/services.ts";
import { connectionFaultOf, isTransient } from "./connection-fault.ts";

/** The result of a connection attempt. Each failure has its own remedy. */
export type PostgresAnswer =
  | { readonly kind: "open"; readonly serverVersion: string; readonly systemIdentifier: string }
  | { readonly kind: "wrong-password" }
  | { readonly kind: "no-database" }
  | { readonly kind: "unreachable"; readonly why: string };

/** Reads from PostgreSQL over the network, in sessions that PostgreSQL itself keeps read-only. */
export interface PostgresReader {
  ask(target: PostgresTarget): Promise<PostgresAnswer>;
  query<Row extends Record<string, unknown>>(
    target: PostgresTarget,
    sql: string,
    values?: readonly unknown[],
  ): Promise<readonly Row[]>;
}

/** The real PostgresReader: a short session per call, which PostgreSQL keeps read-only. */
export function createPostgres(options: Pick<SessionOptions, "connectTimeoutMs"> = {}): PostgresReader {
  const session: SessionOptions = {
    ...options,
    applicationName: "fula-node",
    readOnly: true,
    statementTimeoutMs: 30_000,
  };
  const askOnce = shareInFlight<PostgresAnswer>();
  return {
    // Several steps ask the same database at the same time.
    ask: (target) => askOnce(JSON.stringify(target), () => askDatabase(target, session)),

    query<Row extends Record<string, unknown>>(
      target: Parameters<PostgresReader["query"]>[0],
      sql: string,
      values: readonly unknown[] = [],
    ): Promise<readonly Row[]> {
      // The extended protocol accepts only one statement, so nothing can turn read-only off and then write.
      const extended = { text: sql, values: [...values], queryMode: "extended" };
      return withSession(target, session, async (client) => (await client.query<Row>(extended)).rows);
    },
  };
}

async function askDatabase(target: PostgresTarget, session: SessionOptions): Promise<PostgresAnswer> {
  const { client, refusal } = await openSession(target, session);
  if (client === null) return refusal;
  try {
    return { kind: "open", ...(await identify(client)) };
  } catch (thrown) {
    return { kind: "unreachable", why: messageOf(thrown) };
  } finally {
    await client.end().catch(() => {});
  }
}

/**
 * The system identifier is unique to a data directory. It is "" if the role may not call pg_control_system(): by
 * default every role may, but a provider can revoke that.
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
  /** The limit for connecting, in milliseconds. Default: 5000. */
  readonly connectTimeoutMs?: number;
}

/** Why a session could not be opened. */
type Refusal = Exclude<PostgresAnswer, { readonly kind: "open" }>;

const CONNECT_TIMEOUT_MS = 5_000;

/**
 * Opens one session, or returns why it can't. The driver is loaded with the first session, so that commands without a
 * database start faster. With `ssl` the server's certificate is not checked; POSTGRES_SSL has always worked that way.
 */
async function openSession(
  target: PostgresTarget,
  options: SessionOptions,
): Promise<
  { readonly client: Client; readonly refusal: null } | { readonly client: null; readonly refusal: Refusal }
> {
  const { Client: Session } = await import("pg");
  const client = new Session(configOf(target, options));
  // The next query reports a connection that broke while idle. Without a listener, the event would end the process.
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
 * Runs `work` in one session and closes it. Throws an OperatorError if it can't be opened:
 * `settings` for a wrong password or database name, otherwise `unavailable`. Also `unavailable` if the connection is lost.
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
    throw isTransient(connectionFaultOf(thrown)) ? connectionLost(target, thrown) : thrown;
  } finally {
    await client.end().catch(() => {});
  }
}

/** The error if PostgreSQL itself sent it, otherwise null. */
export function databaseErrorOf(thrown: unknown): DatabaseError | null {
  const sent = thrown instanceof Error && "severity" in thrown && "code" in thrown;
  return sent ? (thrown as DatabaseError) : null;
}

/** The error for a session that can't be opened. */
function refused(target: PostgresTarget, refusal: Refusal): OperatorError {
  const where = `PostgreSQL at ${target.host}:${target.port}`;
  if (refusal.kind === "wrong-password") {
    return new OperatorError({
      exit: "settings",
      what: `${where} refuses user "${target.user}" for database "${target.database}".`,
      why: "PostgreSQL does not accept POSTGRES_USER and POSTGRES_PASSWORD for this database.",
      remedy: "Set POSTGRES_PASSWORD to the password that the database was created with.",
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
    remedy:
      "Check that PostgreSQL runs and that POSTGRES_HOST and POSTGRES_PORT are correct, then run again.",
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
    // A query is sent at once, whether or not the one before it is answered: whoever needs that answer first awaits it.
    pipeline: true,
    options: settings.map((setting) => `-c ${setting}`).join(" "),
  };
}

function refusalOf(target: PostgresTarget, thrown: unknown): Refusal {
  const fault = connectionFaultOf(thrown);
  if (fault === "access-denied") return { kind: "wrong-password" };
  if (fault === "no-database") return { kind: "no-database" };
  // Without a password, the driver fails before the server can refuse it.
  if (target.password === "" && /password must be/.test(messageOf(thrown))) return { kind: "wrong-password" };
  return { kind: "unreachable", why: whyUnreachable(thrown) };
}

function whyUnreachable(thrown: unknown): string {
  if (thrown instanceof AggregateError && thrown.errors.length > 0) {
    return thrown.errors.map(messageOf).join(", ");
  }
  return messageOf(thrown);
}

function connectionLost(target: PostgresTarget, cause: unknown): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `The connection to PostgreSQL at ${target.host}:${target.port} was lost: ${messageOf(cause)}.`,
    remedy: "Check that PostgreSQL runs and is not overloaded, then run again.",
    cause,
  });
}

/** A service's connection pool. */
export interface PostgresPool {
  /**
   * Runs one statement on a connection of the pool. After `timeoutMs` it fails and its connection is closed.
   * Throws the error of PostgreSQL or of the network, which never contains the password.
   */
  query<Row extends Record<string, unknown>>(
    sql: string,
    values?: readonly unknown[],
    options?: { readonly timeoutMs?: number },
  ): Promise<readonly Row[]>;
  /** Waits for running statements, then closes every connection. */
  close(): Promise<void>;
}

/**
 * Creates a pool. The first statement loads the driver and connects. If the database was not reachable, each later
 * statement tries again. With `ssl` the server's certificate is not checked; POSTGRES_SSL has always worked that way.
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
  pool.on("error", (error) => log(`an idle database connection was lost: ${messageOf(error)}`));
  return pool;
}
