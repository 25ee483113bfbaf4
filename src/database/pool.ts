import type { Pool } from "pg";
import { messageOf } from "../errors.ts";
import type { PoolSettings } from "../settings/services.ts";

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
