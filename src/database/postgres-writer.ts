import { createHash, createHmac, pbkdf2Sync } from "node:crypto";
import { OperatorError } from "../errors.ts";
import type { PostgresTarget } from "../settings/postgres-target.ts";
import { type PostgresPool } from "./postgres.ts";
import { databaseErrorOf, withSession } from "./session.ts";

/** Writes to PostgreSQL over the network. */
export interface PostgresWriter {
  /**
   * Changes the password of the target's own role. The server gets a SCRAM verifier, so the password is in no log and in
   * no list of running statements. Repeating it is safe. Throws an OperatorError: `settings` if the server refuses.
   */
  setPassword(target: PostgresTarget, password: string, saltHex: string): Promise<void>;
  /** Runs work in one session that may write. Throws as withSession does. */
  session<Result>(
    target: PostgresTarget,
    work: (database: Pick<PostgresPool, "query">) => Promise<Result>,
  ): Promise<Result>;
}

const SESSION = {
  applicationName: "fula-node",
  readOnly: false,
  statementTimeoutMs: 120_000,
  lockTimeoutMs: 30_000,
};

/** The real PostgresWriter. */
export const postgresWriter: PostgresWriter = {
  async setPassword(target, password, saltHex) {
    const verifier = scramVerifier(password, saltHex);
    try {
      await withSession(target, SESSION, async (client) => {
        // A utility statement takes no parameters. The verifier has no quotes and no backslashes.
        await client.query(`ALTER ROLE CURRENT_USER PASSWORD '${verifier}'`);
      });
    } catch (thrown) {
      const sent = databaseErrorOf(thrown);
      if (sent === null) throw thrown;
      throw new OperatorError({
        exit: "settings",
        what: `The database does not let ${target.user} change its own password: ${sent.message}.`,
        why: "A managed database often allows that only in its own console.",
        remedy: `Set the password of ${target.user} to the value of "next" in the file that is named above, as administrator of the database. Then run this command again.`,
      });
    }
  },

  session: (target, work) =>
    withSession(target, SESSION, (client) =>
      work({
        async query<Row extends Record<string, unknown>>(sql: string, values: readonly unknown[] = []) {
          return (await client.query<Row>(sql, [...values])).rows;
        },
      }),
    ),
};

const ITERATIONS = 4096;

/** The verifier that PostgreSQL stores for a password (RFC 5803, section 2; RFC 7677), as `SCRAM-SHA-256$4096:salt$stored:server`. */
function scramVerifier(password: string, saltHex: string): string {
  const salt = Buffer.from(saltHex, "hex");
  const salted = pbkdf2Sync(password, salt, ITERATIONS, 32, "sha256");
  const hmac = (text: string): Buffer => createHmac("sha256", salted).update(text).digest();
  const stored = createHash("sha256").update(hmac("Client Key")).digest("base64");
  return `SCRAM-SHA-256$${ITERATIONS}:${salt.toString("base64")}$${stored}:${hmac("Server Key").toString("base64")}`;
}
