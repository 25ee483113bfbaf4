import { writeFile } from "node:fs/promises";
import { once } from "node:events";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { createPostgres } from "../../src/database/postgres.ts";
import type { PostgresTarget } from "../../src/settings/postgres-target.ts";
import { listen, migratorOf } from "../support/migrations.ts";
import { describeOnPostgres } from "../support/postgres.ts";
import { sql } from "../support/postgres-server.ts";

const HBA = `
hostssl wants_tls all 127.0.0.1/32 scram-sha-256
host not_here all 127.0.0.1/32 reject
host all open_door 127.0.0.1/32 trust
host trusting all 127.0.0.1/32 trust
host all postgres 127.0.0.1/32 scram-sha-256
`;

describeOnPostgres(
  "a server that lets nobody in says why",
  (postgres) => {
    const reader = createPostgres({ connectTimeoutMs: 2_000 });

    async function failureOf(change: Partial<PostgresTarget>): Promise<unknown> {
      return reader.query({ ...postgres.target, ...change }, "SELECT 1").catch((thrown: unknown) => thrown);
    }

    test.each<[string, Partial<PostgresTarget>, string, string, RegExp, RegExp]>([
      [
        "wants TLS",
        { database: "wants_tls", user: "somebody" },
        "wants-tls",
        "settings",
        /which is not encrypted[^]*no encryption/,
        /--set POSTGRES_SSL=verify-full/,
      ],
      [
        "does not know TLS",
        { ssl: "require" },
        "has-no-tls",
        "settings",
        /does not encrypt/,
        /--set POSTGRES_SSL=disable/,
      ],
      [
        "rejects this machine, encrypted or not",
        { database: "not_here" },
        "wants-tls",
        "settings",
        /pg_hba\.conf rejects connection/,
        /allow this machine in its pg_hba\.conf/,
      ],
      [
        "has no such role",
        { database: "trusting", user: "nobody_here" },
        "no-role",
        "settings",
        /no user "nobody_here"[^]*role "nobody_here" does not exist/,
        /POSTGRES_USER/,
      ],
      [
        "has no such database",
        { database: "nothing_here" },
        "no-database",
        "settings",
        /no database/,
        /POSTGRES_DB/,
      ],
    ])("that %s", async (_, change, kind, exit, texts, remedy) => {
      await sql(postgres.target, "CREATE DATABASE trusting").catch(() => {});
      expect(await reader.ask({ ...postgres.target, ...change })).toMatchObject({ kind });
      const failure = (await failureOf(change)) as {
        exit: string;
        what: string;
        why?: string;
        remedy: string;
      };
      expect(failure.exit).toBe(exit);
      expect(`${failure.what}\n${failure.why ?? ""}`).toMatch(texts);
      expect(failure.remedy).toMatch(remedy);
      expect(JSON.stringify(failure)).not.toContain(postgres.target.password);
    });

    test("that lets this role connect to another database only", async () => {
      const target = await postgres.createDatabase();
      await sql(target, "CREATE ROLE open_door LOGIN");
      await sql(target, `REVOKE CONNECT ON DATABASE ${target.database} FROM public`);
      expect(await reader.ask({ ...target, user: "open_door" })).toMatchObject({
        kind: "not-allowed",
        says: expect.stringContaining("permission denied for database"),
      });
    });

    test("that has no connection left: it passes", async () => {
      const target = await postgres.createDatabase();
      await sql(target, `ALTER DATABASE ${target.database} CONNECTION LIMIT 1`);
      await sql(target, "CREATE ROLE few LOGIN; GRANT ALL ON DATABASE postgres TO few").catch(() => {});
      await sql(target, "ALTER ROLE few CONNECTION LIMIT 0");
      const answer = await reader.ask({ ...target, database: "trusting", user: "few" });
      expect(answer).toMatchObject({
        kind: "exhausted",
        why: expect.stringContaining("too many connections"),
      });
      expect(await failureOf({ database: "trusting", user: "few" })).toMatchObject({ exit: "unavailable" });
    });

    test("that a migration can only read: refused before the ledger", async () => {
      const target = await postgres.createDatabase();
      await sql(target, `ALTER DATABASE ${target.database} SET default_transaction_read_only = on`);
      await expect(migratorOf().up(target, listen())).rejects.toMatchObject({
        exit: "settings",
        what: expect.stringContaining("is read-only"),
        remedy: expect.stringContaining("primary"),
      });
    });

    test("a password that is wrong keeps its own answer", async () => {
      expect(await reader.ask({ ...postgres.target, password: "another one" })).toEqual({
        kind: "wrong-password",
      });
    });
  },
  {
    prepare: (data) => writeFile(join(data, "pg_hba.conf"), HBA),
  },
);

describe("what no test server does in time", () => {
  const reader = createPostgres({ connectTimeoutMs: 1_000 });

  test.each([
    ["57P03", "the database system is starting up", { kind: "not-ready" }],
    ["57P03", "the database system is shutting down", { kind: "not-ready" }],
    ["57P03", "the database system is in recovery mode", { kind: "not-ready" }],
    ["53300", "sorry, too many clients already", { kind: "exhausted" }],
    // pgbouncer 1.18 and 1.21 (its client.c), RDS Proxy.
    ["08P01", "unsupported startup parameter: options", { kind: "pooler" }],
    ["08P01", "unsupported startup parameter in options: statement_timeout", { kind: "pooler" }],
    [
      "0A000",
      "feature not supported: RDS Proxy currently doesn't support command-line options.",
      { kind: "pooler" },
    ],
  ])("%s %s", async (code, message, answer) => {
    const sent = errorResponse({ S: "FATAL", V: "FATAL", C: code, M: message });
    const port = await serve((server) => server.on("connection", (socket) => socket.end(sent)));
    const target: PostgresTarget = {
      host: "127.0.0.1",
      port,
      database: "d",
      user: "u",
      password: "only-for-tests",
      ssl: false,
    };
    expect(await reader.ask(target)).toMatchObject(answer);
  });
});

async function serve(prepare: (server: Server) => void): Promise<number> {
  const server = createServer();
  prepare(server);
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
