import type { Client, Pool } from "pg";
import { type Log, messageOf } from "../errors.ts";
import { shareInFlight } from "../machine/file-reader.ts";
import type { PostgresTarget } from "../settings/postgres-target.ts";
import type { PoolSettings } from "../settings/services.ts";
import type { Refusal } from "./connection-fault.ts";
import {
  ANSWER_GRACE_MS,
  asOptions,
  closeSession,
  databaseErrorOf,
  KEEPALIVE_MS,
  openSession,
  SERVER_KEEPALIVE,
  type SessionOptions,
  sslOf,
  withSession,
} from "./session.ts";

/** The result of a connection attempt. Each failure has its own remedy (describeRefusal). */
export type PostgresAnswer =
  | { readonly kind: "open"; readonly serverVersion: string; readonly systemIdentifier: string }
  | Refusal;

/** Reads from PostgreSQL over the network, in sessions that PostgreSQL itself keeps read-only. */
export interface PostgresReader {
  ask(target: PostgresTarget): Promise<PostgresAnswer>;
  /**
   * Why a session that may write, like those of the services, is refused; null if it is not. Such a session is opened and
   * closed again: one that is kept read-only can't see that the others are, too.
   */
  whyNoWriter(target: PostgresTarget): Promise<Refusal | null>;
  query<Row extends Record<string, unknown>>(
    target: PostgresTarget,
    sql: string,
    values?: readonly unknown[],
  ): Promise<readonly Row[]>;
}

/** The real PostgresReader: a short session per call, which PostgreSQL keeps read-only. */
export function createPostgres(
  options: Partial<Pick<SessionOptions, "connectTimeoutMs" | "statementTimeoutMs">> = {},
): PostgresReader {
  const session: SessionOptions = {
    statementTimeoutMs: 30_000,
    ...options,
    applicationName: "fula-node",
    readOnly: true,
    lockTimeoutMs: 10_000,
  };
  const askOnce = shareInFlight<PostgresAnswer>();
  return {
    // Several steps ask the same database at the same time.
    ask: (target) => askOnce(JSON.stringify(target), () => askDatabase(target, session)),

    async whyNoWriter(target) {
      const opened = await openSession(target, { ...session, readOnly: false });
      if ("kind" in opened) return opened;
      await closeSession(opened);
      return null;
    },

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
  const opened = await openSession(target, session);
  if ("kind" in opened) return opened;
  const { client } = opened;
  try {
    return { kind: "open", ...(await identify(client)) };
  } catch (thrown) {
    return { kind: "unreachable", why: messageOf(thrown) };
  } finally {
    await closeSession(opened);
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

/** A service's connection pool. */
export interface PostgresPool {
  /**
   * Runs one statement on a connection of the pool. A `name` lets each connection prepare it once; the same name must
   * always have the same SQL. After `timeoutMs` it fails and its connection is closed; the server
   * then ends the statement. Without it, the limit is 30 s.
   * Throws the error of PostgreSQL or of the network, which never contains the password.
   */
  query<Row extends Record<string, unknown>>(
    sql: string,
    values?: readonly unknown[],
    options?: { readonly timeoutMs?: number; readonly name?: string },
  ): Promise<readonly Row[]>;
  /**
   * Runs several statements in one transaction, on one connection of the pool; keep it short. Throws what `work` throws,
   * or the error of the connection; the connection is then closed, and PostgreSQL takes back what it did.
   */
  transaction<Result>(work: (database: Pick<PostgresPool, "query">) => Promise<Result>): Promise<Result>;
  /** How many connections are open and idle now, and how many statements wait for one. */
  connections(): { readonly open: number; readonly idle: number; readonly waiting: number };
  /** Waits for running statements, then closes every connection. */
  close(): Promise<void>;
}

/**
 * Creates a pool. The first statement loads the driver and connects. If the database was not reachable, each later
 * statement tries again.
 */
export function openPostgresPool(settings: PoolSettings, options: PoolOptions): PostgresPool {
  let opened: Promise<Pool> | null = null;
  let counted: Pool | null = null;
  const openCounted = async (): Promise<Pool> => (counted = await open(settings, options));
  // A CA file that can't be read now may be readable for the next statement.
  const pool = (): Promise<Pool> =>
    (opened ??= openCounted().catch((thrown: unknown) => {
      opened = null;
      throw thrown;
    }));
  return {
    query: queryOn(pool),
    async transaction(work) {
      const client = await (await pool()).connect();
      let isDone = false;
      try {
        await client.query("BEGIN");
        const result = await work({ query: queryOn(async () => client) });
        await commit(client);
        isDone = true;
        return result;
      } finally {
        client.release(!isDone);
      }
    },
    connections: () => ({
      open: counted?.totalCount ?? 0,
      idle: counted?.idleCount ?? 0,
      waiting: counted?.waitingCount ?? 0,
    }),
    async close() {
      await (await opened)?.end();
    },
  };
}

/** The same pool for one of its users, which uses at most so many of its connections at once. */
export function limitConnections(pool: PostgresPool, most: number): PostgresPool {
  const waiting: (() => void)[] = [];
  let free = most;
  const inTurn = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    if (free > 0) free -= 1;
    else await new Promise<void>((resolve) => void waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) free += 1;
      else next();
    }
  };
  return {
    ...pool,
    query: (...statement) => inTurn(() => pool.query(...statement)),
    transaction: (work) => inTurn(() => pool.transaction(work)),
  };
}

/**
 * Ends a transaction. PostgreSQL answers COMMIT without an error, and takes everything back, after an error in it that
 * nobody threw on.
 */
export async function commit(client: Pick<Client, "query">): Promise<void> {
  const { command } = await client.query("COMMIT");
  if (command !== "COMMIT") throw new Error("PostgreSQL took the transaction back: a statement in it failed");
}

/** The query function of a pool, or of a connection. */
export function queryOn(runner: () => Promise<Pick<Pool, "query">>): PostgresPool["query"] {
  return async <Row extends Record<string, unknown>>(
    sql: string,
    values: readonly unknown[] = [],
    { timeoutMs, name }: { readonly timeoutMs?: number; readonly name?: string } = {},
  ) => {
    const limit = timeoutMs === undefined ? {} : { query_timeout: timeoutMs };
    const prepared = name === undefined ? {} : { name };
    const query = { text: sql, values: [...values], ...prepared, ...limit };
    const { rows } = await (await runner()).query<Row>(query);
    return rows;
  };
}

interface PoolOptions {
  /** What `pg_stat_activity` shows. */
  readonly applicationName: string;
  readonly log: Log;
}

/** The longest statement of a service, and how long it waits for a lock, in milliseconds. */
const POOL_STATEMENT_MS = 30_000;
const POOL_LOCK_MS = 10_000;

/**
 * Lets a backend look every second whether its client is still there: a statement that a client gave up ends, instead
 * of running on (PostgreSQL 14 or newer).
 */
const NOTICE_GONE_CLIENTS =
  "SELECT set_config(name, '1s', false) FROM pg_settings WHERE name = 'client_connection_check_interval'";

async function open(settings: PoolSettings, { applicationName, log }: PoolOptions): Promise<Pool> {
  const { default: pg } = await import("pg");
  const pool = new pg.Pool({
    host: settings.host,
    port: settings.port,
    database: settings.database,
    user: settings.user,
    password: settings.password,
    ssl: await sslOf(settings),
    max: settings.maxConnections,
    idleTimeoutMillis: settings.idleTimeoutMs,
    connectionTimeoutMillis: settings.connectTimeoutMs,
    application_name: applicationName,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEPALIVE_MS,
    query_timeout: POOL_STATEMENT_MS + ANSWER_GRACE_MS,
    options: asOptions([
      `statement_timeout=${POOL_STATEMENT_MS}`,
      `lock_timeout=${POOL_LOCK_MS}`,
      `idle_in_transaction_session_timeout=${POOL_STATEMENT_MS}`,
      ...SERVER_KEEPALIVE,
    ]),
    // Called once for each connection, before its first statement.
    verify: (client, done) => void client.query(NOTICE_GONE_CLIENTS).then(() => done(), done),
  });
  // The pool listens to idle connections only. One that breaks in use fails its statement, or the next one; without a
  // listener, its event would end the process as well.
  pool.on("connect", (client) => client.on("error", () => {}));
  pool.on("error", (error) => log(`an idle database connection was lost: ${messageOf(error)}`, "warn"));
  return pool;
}
