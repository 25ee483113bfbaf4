import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { connectionFaultOf } from "../../src/database/connection-fault.ts";
import { createPostgres, openPostgresPool } from "../../src/database/postgres.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { ledgerOf, listen, makesTable, migrationsDirectory, migratorOf } from "../support/migrations.ts";
import { startPostgresProxy } from "../support/postgres-proxy.ts";
import { sql } from "../support/postgres-server.ts";
import { describeOnPostgres } from "../support/postgres.ts";

/** In so long, a busy machine opens the session of a look: four that fail in a row count as the loss of the server. */
const WATCH_MS = 500;

describeOnPostgres("a connection that is lost on the way", (postgres) => {
  test("a migration whose answer gets lost ends, and lets its lock go", async () => {
    const target = await postgres.createDatabase();
    const directory = await migrationsDirectory({
      "001_slow.sql": makesTable("made", "SELECT pg_sleep(4);"),
    });
    const proxy = await startPostgresProxy(target.port);
    const lost = migratorOf({ directory, watchMs: WATCH_MS }).up({ ...target, port: proxy.port }, listen());
    const failed = expect(lost).rejects.toMatchObject({
      exit: "unavailable",
      what: expect.stringContaining("the server's answer did not arrive"),
      remedy: expect.stringContaining("Check that PostgreSQL runs"),
    });
    await expect.poll(() => countOf(target, "query LIKE 'SELECT pg_sleep%'"), { timeout: 10_000 }).toBe(1);
    proxy.freeze();
    await failed;
    await migratorOf({ directory, lockWaitMs: 15_000 }).up(target, listen());
    expect(await ledgerOf(target)).toEqual(["1 applied applied"]);
  });

  test("a migration whose server is no longer reachable ends", async () => {
    const target = await postgres.createDatabase();
    const directory = await migrationsDirectory({
      "001_slow.sql": makesTable("made", "SELECT pg_sleep(60);"),
    });
    const proxy = await startPostgresProxy(target.port);
    const lost = migratorOf({ directory, watchMs: WATCH_MS }).up({ ...target, port: proxy.port }, listen());
    const failed = expect(lost).rejects.toMatchObject({ exit: "unavailable" });
    await expect.poll(() => countOf(target, "query LIKE 'SELECT pg_sleep%'"), { timeout: 10_000 }).toBe(1);
    proxy.freeze();
    proxy.freezeNew();
    await failed;
    // The statement does not go on in the server.
    await expect.poll(() => countOf(target, "query LIKE 'SELECT pg_sleep%'"), { timeout: 10_000 }).toBe(0);
  }, 30_000);

  test("a question whose answer gets lost ends in time", async () => {
    const target = await postgres.createDatabase();
    const proxy = await startPostgresProxy(target.port);
    // Long enough for another session to see it meanwhile.
    const reader = createPostgres({ statementTimeoutMs: 4_000 });
    const asked = reader.query({ ...target, port: proxy.port }, "SELECT pg_sleep(3.5)");
    const failed = expect(asked).rejects.toMatchObject({ exit: "unavailable" });
    await expect.poll(() => countOf(target, "query LIKE 'SELECT pg_sleep%'"), { timeout: 10_000 }).toBe(1);
    proxy.freeze();
    await failed;
  });

  test.each(["client_connection_check_interval", "the statement", "BEGIN", "in between", "COMMIT"])(
    "a connection that is reset at %s fails its statement alone: no event ends the process, and the next one works",
    async (text) => {
      const target = await postgres.createDatabase();
      const proxy = await startPostgresProxy(target.port);
      const limits = { maxConnections: 1, idleTimeoutMs: 1_000, connectTimeoutMs: 2_000 };
      const where = { ...target, port: proxy.port, ...limits };
      const pool = openPostgresPool(where, { applicationName: "test", log: () => {} });
      const work = async () => {
        await pool.query("SELECT 'the statement'");
        await pool.transaction(({ query }) => query("SELECT 'in between'"));
      };
      proxy.resetAt(text);
      await expect(work()).rejects.toThrow(/ECONNRESET|terminated/);
      await work();
      await pool.close();
    },
  );

  test("a statement that a service gave up does not go on in the server", async () => {
    const target = await postgres.createDatabase();
    const limits = { maxConnections: 1, idleTimeoutMs: 1_000, connectTimeoutMs: 2_000 };
    const pool = openPostgresPool({ ...target, ...limits }, { applicationName: "test", log: () => {} });
    await expect(pool.query("SELECT pg_sleep(60)", [], { timeoutMs: 300 })).rejects.toThrow(/timeout/);
    await expect.poll(() => countOf(target, "query LIKE 'SELECT pg_sleep%'"), { timeout: 10_000 }).toBe(0);
    expect(await pool.query("SELECT current_setting('statement_timeout') AS limit")).toEqual([
      { limit: "30s" },
    ]);
    await pool.close();
  });

  test("a server gives a session up 25 s after its machine is gone", async () => {
    const reader = createPostgres();
    const names = ["tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count"];
    const shown = names.map((name) => `current_setting('${name}')`).join(" || ' ' || ");
    expect(await reader.query(postgres.target, `SELECT ${shown} AS keepalive`)).toEqual([
      { keepalive: "10 5 3" },
    ]);
  });

  test("a migration may take long, whatever the role's own limit is", async () => {
    const target = await postgres.createDatabase();
    await sql(target, `ALTER DATABASE ${target.database} SET statement_timeout = '200ms'`);
    await sql(target, `ALTER DATABASE ${target.database} SET lock_timeout = '200ms'`);
    const directory = await migrationsDirectory({
      "001_slow.sql": makesTable("made", "SELECT pg_sleep(5);"),
    });
    // Looked at ten times: a session that works is never taken for a lost one.
    await migratorOf({ directory, watchMs: WATCH_MS }).up(target, listen());
    expect(await ledgerOf(target)).toEqual(["1 applied applied"]);
  });
});

test("a connection that is ended right after its first statement does not end the process", async () => {
  const field = (kind: string, text: string): string => `${kind}${text}\0`;
  const message = (kind: string, body: string): Buffer => {
    const head = Buffer.alloc(5);
    head.write(kind);
    head.writeInt32BE(Buffer.byteLength(body) + 4, 1);
    return Buffer.concat([head, Buffer.from(body)]);
  };
  const READY = message("Z", "I");
  const ENDED = message(
    "E",
    `${field("S", "FATAL")}${field("C", "57P01")}${field("M", "terminating connection due to administrator command")}\0`,
  );
  // The driver reads the end of the statement and the error in one step, so nobody has taken the connection yet.
  const { port, close } = await listenAnywhereRaw((socket) => {
    socket.once("data", () => {
      socket.write(Buffer.concat([message("R", "\0\0\0\0"), READY]));
      socket.once("data", () => socket.end(Buffer.concat([message("C", "SELECT 0\0"), READY, ENDED])));
    });
  });
  onTestFinished(close);
  const limits = { maxConnections: 1, idleTimeoutMs: 1_000, connectTimeoutMs: 2_000 };
  const server = { host: "127.0.0.1", port, database: "d", user: "u", password: "p", ssl: false } as const;
  const pool = openPostgresPool({ ...server, ...limits }, { applicationName: "test", log: () => {} });
  onTestFinished(() => pool.close());
  const uncaught: unknown[] = [];
  const note = (thrown: unknown): void => void uncaught.push(thrown);
  process.prependListener("uncaughtException", note);
  onTestFinished(() => void process.off("uncaughtException", note));
  for (const work of [() => pool.query("SELECT 1"), () => pool.transaction((on) => on.query("SELECT 1"))]) {
    const thrown = await work().then(
      () => null,
      (reason: unknown) => reason,
    );
    expect(thrown).toMatchObject({ message: expect.stringMatching(/not queryable|terminat/) as string });
    expect(connectionFaultOf(thrown)).not.toBeNull();
  }
  expect(uncaught).toEqual([]);
});

async function listenAnywhereRaw(onSocket: (socket: Socket) => void) {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    onSocket(socket);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    close: () => void server.close(),
  };
}

async function countOf(target: PostgresTarget, condition: string): Promise<number> {
  const [row] = await sql<{ n: number }>(
    target,
    `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND ${condition}`,
  );
  return row?.n ?? -1;
}
