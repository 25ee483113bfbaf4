import { readFile } from "node:fs/promises";
import { Socket } from "node:net";
import { type ConnectionOptions, rootCertificates } from "node:tls";
import type { Client, ClientConfig, DatabaseError } from "pg";
import { messageOf, OperatorError } from "../errors.ts";
import type { PostgresTarget } from "../settings/postgres-target.ts";
import {
  connectionFaultOf,
  describeRefusal,
  isTransient,
  type Refusal,
  refusalOf,
} from "./connection-fault.ts";

/** How a session is opened. */
export interface SessionOptions {
  /** What `pg_stat_activity` shows. */
  readonly applicationName: string;
  /** True: PostgreSQL itself refuses every write in this session. */
  readonly readOnly: boolean;
  /** Milliseconds until the server cancels a statement, and 5 s more until we give up its answer; 0 lets it run. */
  readonly statementTimeoutMs: number;
  /** Milliseconds until the server gives up to wait for a lock; 0 lets it wait. */
  readonly lockTimeoutMs: number;
  /** The limit for connecting, in milliseconds. Default: 5000. */
  readonly connectTimeoutMs?: number;
  /**
   * For a session whose statements may run for hours: how often another session asks the server whether this one still
   * works there. If its answers get lost on the way, it ends within a few times this, in milliseconds.
   */
  readonly watchMs?: number;
}

const CONNECT_TIMEOUT_MS = 5_000;
/** How long we wait for the answer of a statement that the server should have ended. */
export const ANSWER_GRACE_MS = 5_000;
const CLOSE_TIMEOUT_MS = 1_000;
/** How long a connection is silent before TCP asks whether the other side is still there. */
export const KEEPALIVE_MS = 10_000;

/** The server ends a session whose client's machine is gone after 25 s, and so lets its locks go. */
export const SERVER_KEEPALIVE = [
  "tcp_keepalives_idle=10",
  "tcp_keepalives_interval=5",
  "tcp_keepalives_count=3",
];

/** Sent with each session. A pooler that swallows start-up options does not pass it on. */
const SESSION_MARK = "fula_node.session";

/** An open session. */
interface Opened {
  readonly client: Client;
  readonly socket: Socket;
  /** The process id of its backend. */
  readonly backend: number;
}

/**
 * Opens one session, or returns why it can't. The driver is loaded with the first session, so that commands without a
 * database start faster.
 */
export async function openSession(
  target: PostgresTarget,
  options: SessionOptions,
): Promise<Opened | Refusal> {
  const { Client: Session } = await import("pg");
  const socket = new Socket();
  const client = new Session({ ...(await configOf(target, options)), stream: () => socket });
  // The next query reports a connection that broke while idle. Without a listener, the event would end the process.
  client.on("error", () => {});
  try {
    await client.connect();
    const { rows } = await client.query<{
      backend: number;
      mark: string | null;
      standby: boolean;
      ro: string;
    }>(
      `SELECT pg_backend_pid() AS backend, current_setting('${SESSION_MARK}', true) AS mark,
         pg_is_in_recovery() AS standby, current_setting('transaction_read_only') AS ro`,
    );
    const backend = rows[0]?.backend ?? 0;
    const refusal = refuseSession(options, rows[0]);
    if (refusal === null) return { client, socket, backend };
    await closeSession({ client, socket });
    return refusal;
  } catch (thrown) {
    await closeSession({ client, socket });
    return refusalOf(target, thrown);
  }
}

function refuseSession(
  { readOnly }: SessionOptions,
  row: { readonly mark: string | null; readonly standby: boolean; readonly ro: string } | undefined,
): Refusal | null {
  if (row?.mark !== "1") return { kind: "pooler", says: "the settings of the session did not arrive" };
  if (row.standby) return { kind: "read-only", says: "it is a standby, which copies another server" };
  if (row.ro === "on" && !readOnly)
    return { kind: "read-only", says: "default_transaction_read_only is on for this user or database" };
  return null;
}

/** Ends a session. A server that does not take leave in time loses the connection. */
export async function closeSession({ client, socket }: Pick<Opened, "client" | "socket">): Promise<void> {
  const timer = setTimeout(() => socket.destroy(), CLOSE_TIMEOUT_MS);
  await client.end().catch(() => {});
  clearTimeout(timer);
}

/**
 * Runs `work` in one session and closes it. Throws an OperatorError if it can't be opened (describeRefusal), and
 * (`unavailable`) if the connection is lost.
 */
export async function withSession<Result>(
  target: PostgresTarget,
  options: SessionOptions,
  work: (client: Client) => Promise<Result>,
): Promise<Result> {
  const opened = await openSession(target, options);
  if ("kind" in opened) throw new OperatorError(describeRefusal(target, opened));
  const endWatch = watch(target, options, opened);
  try {
    return await work(opened.client);
  } catch (thrown) {
    throw isTransient(connectionFaultOf(thrown)) ? connectionLost(target, thrown) : thrown;
  } finally {
    endWatch();
    await closeSession(opened);
  }
}

/** After this many times `watchMs` without an answer, or idle in the server, a watched session counts as lost. */
const LOST_AFTER = 4;

/**
 * Watches a session from another one, as TCP alone does not notice every loss: a firewall or proxy between can forget
 * a connection and still confirm what we send. Returns a function that ends the watch.
 */
function watch(
  target: PostgresTarget,
  { applicationName, watchMs }: SessionOptions,
  watched: Opened,
): () => void {
  if (watchMs === undefined) return () => {};
  const { socket, backend } = watched;
  let failed = 0;
  let isOver = false;
  let timer: NodeJS.Timeout;
  const session = {
    applicationName: `${applicationName} (watch)`,
    readOnly: true,
    statementTimeoutMs: 5_000,
    lockTimeoutMs: 0,
    connectTimeoutMs: watchMs,
  };
  const look = async (): Promise<void> => {
    const opened = await openSession(target, session);
    if ("kind" in opened) {
      failed += 1;
      if (failed >= LOST_AFTER) lose("PostgreSQL does not answer any more");
      return;
    }
    try {
      const { rows } = await opened.client.query<{ idle: boolean }>(
        `SELECT state LIKE 'idle%' AND clock_timestamp() - state_change > $2 * interval '1 ms' AS idle
         FROM pg_stat_activity WHERE pid = $1`,
        [backend, LOST_AFTER * watchMs],
      );
      failed = 0;
      if (rows[0] === undefined) lose("the server ended the session");
      else if (rows[0].idle) lose("the server's answer did not arrive");
    } finally {
      await closeSession(opened);
    }
  };
  const lose = (why: string): void => void socket.destroy(new Error(`Connection terminated: ${why}`));
  const next = (): void => {
    // A look that fails in the middle counts as none; the next one follows.
    timer = setTimeout(
      () =>
        void look()
          .catch(() => {})
          .finally(() => isOver || next()),
      watchMs,
    ).unref();
  };
  next();
  return () => {
    isOver = true;
    clearTimeout(timer);
  };
}

/** The error if PostgreSQL itself sent it, otherwise null. */
export function databaseErrorOf(thrown: unknown): DatabaseError | null {
  const sent = thrown instanceof Error && "severity" in thrown && "code" in thrown;
  return sent ? (thrown as DatabaseError) : null;
}

async function configOf(target: PostgresTarget, options: SessionOptions): Promise<ClientConfig> {
  const { statementTimeoutMs, lockTimeoutMs } = options;
  const settings = [
    `${SESSION_MARK}=1`,
    `statement_timeout=${statementTimeoutMs}`,
    `lock_timeout=${lockTimeoutMs}`,
    ...SERVER_KEEPALIVE,
    ...(options.readOnly ? ["default_transaction_read_only=on"] : []),
  ];
  return {
    host: target.host,
    port: target.port,
    database: target.database,
    user: target.user,
    password: target.password,
    ssl: await sslOf(target),
    application_name: options.applicationName,
    connectionTimeoutMillis: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEPALIVE_MS,
    ...(statementTimeoutMs === 0 ? {} : { query_timeout: statementTimeoutMs + ANSWER_GRACE_MS }),
    // A query is sent at once, whether or not the one before it is answered: whoever needs that answer first awaits it.
    pipeline: true,
    options: asOptions(settings),
  };
}

/** Settings as the start-up option that libpq's `options` are. */
export function asOptions(settings: readonly string[]): string {
  return settings.map((setting) => `-c ${setting}`).join(" ");
}

/** Where Debian and Ubuntu keep the CAs that this system trusts. */
const SYSTEM_CAS = "/etc/ssl/certs/ca-certificates.crt";

/**
 * The modes of libpq (its manual, 34.19): `require` alone encrypts and trusts whoever answers; with a CA it checks the
 * certificate, but not the name; `verify-full` checks both. Throws (`settings`) if the CA file can't be read.
 */
export async function sslOf({ ssl, sslCa, sslCaPem }: PostgresTarget): Promise<false | ConnectionOptions> {
  if (ssl === false) return false;
  if (ssl === "require" && sslCa === undefined && sslCaPem === undefined)
    return { rejectUnauthorized: false };
  const own = sslCa === undefined ? [] : [await readCa(sslCa)];
  const given = [...own, ...(sslCaPem === undefined ? [] : [sslCaPem])];
  const ca = given.length === 0 ? await systemCas() : given;
  return {
    rejectUnauthorized: true,
    ca,
    ...(ssl === "require" ? { checkServerIdentity: () => undefined } : {}),
  };
}

async function systemCas(): Promise<string[]> {
  const own = await readFile(SYSTEM_CAS, "utf8").catch(() => null);
  return [...rootCertificates, ...(own === null ? [] : [own])];
}

async function readCa(path: string): Promise<string> {
  const fault = (what: string, cause?: unknown) =>
    new OperatorError({
      exit: "settings",
      what: `POSTGRES_SSL_CA is ${path}, and that file ${what}.`,
      remedy: "Put the certificate of the database's CA there, in PEM form, or correct POSTGRES_SSL_CA.",
      cause,
    });
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (thrown) {
    throw fault(`can't be read: ${messageOf(thrown)}`, thrown);
  }
  // Node ignores a file without a certificate, and then trusts nobody with another message.
  if (!text.includes("-----BEGIN CERTIFICATE-----")) throw fault("holds no certificate in PEM form");
  return text;
}

function connectionLost(target: PostgresTarget, cause: unknown): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `The connection to PostgreSQL at ${target.host}:${target.port} was lost: ${messageOf(cause)}.`,
    remedy: "Check that PostgreSQL runs and is not overloaded, then run again.",
    cause,
  });
}
