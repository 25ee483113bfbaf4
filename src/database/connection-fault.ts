import { OperatorError } from "../errors.ts";

/** Why a database does not work for a client, independent of the statement. */
export type ConnectionFault = "unreachable" | "access-denied" | "no-database" | "exhausted" | "stopped";

/** By the class of an SQLSTATE (PostgreSQL's manual, appendix A). */
const CLASSES: Readonly<Record<string, ConnectionFault>> = {
  "08": "unreachable",
  "28": "access-denied",
  "3D": "no-database",
  "53": "exhausted",
  "57": "stopped",
};
/** The driver's own messages for a lost connection, a failed connection attempt and a missing answer (pg 8). */
const DRIVER = /^(?:Connection terminated|timeout exceeded when trying to connect|Query read timeout)/;

/**
 * The fault behind an error of PostgreSQL, of its driver or of the network; null for errors of a statement and
 * all others. `exhausted`: no connection, memory or disk space left. `stopped`: ended by an operator.
 */
export function connectionFaultOf(thrown: unknown): ConnectionFault | null {
  if (!(thrown instanceof Error) || thrown instanceof OperatorError) return null;
  if ("severity" in thrown) return "code" in thrown ? faultOfState(thrown.code) : null;
  const isOfNetwork = "syscall" in thrown || thrown instanceof AggregateError || DRIVER.test(thrown.message);
  return isOfNetwork ? "unreachable" : null;
}

/** The fault behind an SQLSTATE. */
export function faultOfState(code: unknown): ConnectionFault | null {
  return typeof code === "string" ? (CLASSES[code.slice(0, 2)] ?? null) : null;
}

/** True for a fault that can disappear without a change of settings. */
export function isTransient(fault: ConnectionFault | null): boolean {
  return fault === "unreachable" || fault === "exhausted" || fault === "stopped";
}
