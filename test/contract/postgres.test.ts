import { once } from "node:events";
import { createServer, type Server } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { createPostgres } from "../../src/database/postgres.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";

const SECRET = "hunter2-hunter2";

describeOnPostgres("the Postgres reader", (postgres) => {
  const reader = createPostgres();

  test("an open database tells its version and whose data directory it is", async () => {
    const answer = await reader.ask(postgres.target);

    const [row] = await sql(postgres.target, "SELECT system_identifier::text AS id FROM pg_control_system()");
    expect(answer).toEqual({
      kind: "open",
      serverVersion: expect.stringMatching(/^\d+\.\d+/),
      systemIdentifier: row?.["id"],
    });
  });

  test("a database whose sessions are read-only by default is open to read, and refuses who would write", async () => {
    const target = await postgres.createDatabase();
    expect(await reader.whyNoWriter(target)).toBeNull();
    await sql(target, `ALTER DATABASE "${target.database}" SET default_transaction_read_only = on`);
    expect(await reader.ask(target)).toMatchObject({ kind: "open" });
    expect(await reader.whyNoWriter(target)).toMatchObject({ kind: "read-only" });
    expect(await reader.whyNoWriter({ ...target, port: 1 })).toMatchObject({ kind: "unreachable" });
  });

  test("a role that may not ask for the data directory still finds the database open", async () => {
    const target = await postgres.createDatabase();
    await sql(target, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public");
    await sql(target, "CREATE ROLE modest LOGIN PASSWORD 'only-for-tests'");

    expect(await reader.ask({ ...target, user: "modest" })).toMatchObject({
      kind: "open",
      systemIdentifier: "",
    });
  });

  test.each([
    ["a wrong password", { password: SECRET }, { kind: "wrong-password" }],
    ["no password at all", { password: "" }, { kind: "wrong-password" }],
    ["an unknown user", { user: "nobody-here", password: SECRET }, { kind: "wrong-password" }],
    ["an unknown database", { database: "nothing_here" }, { kind: "no-database" }],
    ["a closed port", { port: 1 }, { kind: "unreachable", why: expect.stringContaining("ECONNREFUSED") }],
    [
      "an unknown name",
      { host: "nowhere.invalid" },
      { kind: "unreachable", why: expect.stringMatching(/ENOTFOUND|EAI_AGAIN/) },
    ],
  ])("%s is printed apart", async (_, change, answer) => {
    expect(await reader.ask({ ...postgres.target, ...change })).toEqual(answer);
  });

  test("a server that is starting up is not ready, and says why", async () => {
    const starting = errorResponse({
      S: "FATAL",
      V: "FATAL",
      C: "57P03",
      M: "the database system is starting up",
    });
    const port = await listen((server) => server.on("connection", (socket) => socket.end(starting)));

    expect(await reader.ask({ ...postgres.target, port })).toEqual({
      kind: "not-ready",
      why: "the database system is starting up",
    });
  });

  test("a port that takes connections and says nothing is unreachable in time", async () => {
    const port = await listen(() => {});
    const impatient = createPostgres({ connectTimeoutMs: 300 });

    expect(await impatient.ask({ ...postgres.target, port })).toMatchObject({ kind: "unreachable" });
  });

  test("rows come back typed, with values bound", async () => {
    const rows = await reader.query(postgres.target, "SELECT $1::int + 1 AS next, $2::text AS text", [
      41,
      "a'b",
    ]);

    expect(rows).toEqual([{ next: 42, text: "a'b" }]);
  });

  test.each([
    ["a statement that writes", "CREATE TABLE written ()"],
    ["a block that writes", "DO $$ BEGIN CREATE TABLE written (); END $$"],
    [
      "a block that wants to write",
      "DO $$ BEGIN SET transaction_read_only = off; CREATE TABLE written (); END $$",
    ],
    ["a second statement", "SET default_transaction_read_only = off; COMMIT; CREATE TABLE written ()"],
  ])("PostgreSQL itself refuses %s", async (_, statement) => {
    const target = await postgres.createDatabase();

    await expect(reader.query(target, statement)).rejects.toMatchObject({
      code: expect.stringMatching(/^(?:25006|25001|42601)$/),
    });
    expect(await sql(target, "SELECT FROM pg_class WHERE relname = 'written'")).toEqual([]);
  });

  test.each<[string, Partial<PostgresTarget>, string]>([
    ["a wrong password", { password: SECRET }, "settings"],
    ["an unknown database", { database: "nothing_here" }, "settings"],
    ["a closed port", { port: 1 }, "unavailable"],
  ])("a query with %s is an operator's error without the password", async (_, change, exit) => {
    const failure = await reader
      .query({ ...postgres.target, ...change }, "SELECT 1")
      .catch((thrown: unknown) => thrown);

    expect(failure).toMatchObject({ exit, remedy: expect.any(String) });
    expect(JSON.stringify(failure)).not.toContain(SECRET);
  });

  test("a session ended in the middle of a query is unavailable", async () => {
    const running = reader.query(postgres.target, "SELECT pg_sleep(60)");
    running.catch(() => {});
    const end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while ((await sql(postgres.target, end)).length === 0);

    await expect(running).rejects.toMatchObject({ exit: "unavailable" });
  });
});

async function listen(serve: (server: Server) => void): Promise<number> {
  const server = createServer();
  serve(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

/** PostgreSQL manual, 55.7 Message Formats: ErrorResponse. */
function errorResponse(fields: Readonly<Record<string, string>>): Buffer {
  const body = Buffer.from(
    `${Object.entries(fields)
      .map(([key, value]) => `${key}${value}\0`)
      .join("")}\0`,
  );
  const length = Buffer.alloc(4);
  length.writeInt32BE(body.length + 4);
  return Buffer.concat([Buffer.from("E"), length, body]);
}
