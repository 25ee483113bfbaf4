import type { Client } from "pg";
import { messageOf } from "../errors.ts";
import type { PostgresReader } from "./host.ts";
import { databaseErrorOf, openSession, type SessionOptions, withSession } from "./postgres-session.ts";

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
