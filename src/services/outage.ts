import { messageOf } from "../errors.ts";
import type { Reply } from "./router.ts";

/**
 * Says "try again" where the database is away or not ready, which is nobody's mistake; the log says why.
 * Anything else that is thrown stays thrown.
 */
export async function whileDatabaseAnswers(
  log: (line: string) => void,
  work: () => Promise<Reply>,
): Promise<Reply> {
  try {
    return await work();
  } catch (thrown) {
    if (!isOutage(thrown)) throw thrown;
    log(`the database did not answer: ${messageOf(thrown)}`);
    return {
      status: 503,
      body: { error: "The database does not answer; try again." },
      headers: { "retry-after": "5" },
    };
  }
}

/**
 * SQLSTATE classes for: connection lost, let in by nobody, no such database, out of resources, cut short by
 * an operator; and the code for a table that no migration has made yet.
 */
const SENT = /^(?:08|28|3D|53|57|42P01)/;
/** The driver's own words for a connection that it lost, or did not get or hear from in time. */
const OWN = /^(?:Connection terminated|timeout exceeded when trying to connect|Query read timeout)/;

function isOutage(thrown: unknown): boolean {
  if (!(thrown instanceof Error)) return false;
  const { severity, code, syscall } = thrown as {
    readonly severity?: unknown;
    readonly code?: unknown;
    readonly syscall?: unknown;
  };
  if (severity !== undefined) return typeof code === "string" && SENT.test(code);
  return syscall !== undefined || thrown instanceof AggregateError || OWN.test(thrown.message);
}
