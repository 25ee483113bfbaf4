import { OperatorError } from "../errors.ts";

/** What keeps a database from working for a client, whatever the statement is. */
export type ConnectionFault = "unreachable" | "not-admitted" | "no-database" | "exhausted" | "stopped";

/** By the class of an SQLSTATE (PostgreSQL's manual, appendix A). */
const CLASSES: Readonly<Record<string, ConnectionFault>> = {
  "08": "unreachable",
  "28": "not-admitted",
  "3D": "no-database",
  "53": "exhausted",
  "57": "stopped",
};
/** The driver's own messages for a connection that it lost, did not get, or did not hear from in time (pg 8). */
const DRIVER = /^(?:Connection terminated|timeout exceeded when trying to connect|Query read timeout)/;

/**
 * The fault behind an error of PostgreSQL, of its driver or of the network; null for errors of a statement, and for
 * everything else. `exhausted`: no connection, memory or disk space left. `stopped`: ended by an operator.
 */
export function connectionFaultOf(thrown: unknown): ConnectionFault | null {
  if (!(thrown instanceof Error) || thrown instanceof OperatorError) return null;
  if ("severity" in thrown) return "code" in thrown ? faultOfState(thrown.code) : null;
  const isOfNetwork = "syscall" in thrown || thrown instanceof AggregateError || DRIVER.test(thrown.message);
  return isOfNetwork ? "unreachable" : null;
}

/** The same for an SQLSTATE. */
export function faultOfState(code: unknown): ConnectionFault | null {
  return typeof code === "string" ? (CLASSES[code.slice(0, 2)] ?? null) : null;
}

/** True for a fault that may be gone later without anybody changing a setting. */
export function isPassing(fault: ConnectionFault | null): boolean {
  return fault === "unreachable" || fault === "exhausted" || fault === "stopped";
}
