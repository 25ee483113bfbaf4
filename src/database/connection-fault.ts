import { messageOf, OperatorError, type OperatorErrorFields } from "../errors.ts";
import type { PostgresTarget } from "../settings/postgres-target.ts";

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
const DRIVER =
  /^(?:Connection terminated|timeout exceeded when trying to connect|Query read timeout|Client (?:has encountered a connection error|was closed) and is not queryable)/;

/**
 * The fault behind an error of PostgreSQL, of its driver or of the network; null for errors of a statement and
 * all others. `exhausted`: no connection, memory or disk space left. `stopped`: ended by an operator.
 */
export function connectionFaultOf(thrown: unknown): ConnectionFault | null {
  if (!(thrown instanceof Error) || thrown instanceof OperatorError) return null;
  if (isSent(thrown)) return faultOfState(thrown.code);
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

/** The SQLSTATE of an error that PostgreSQL sent, or a pooler in front of it; empty for any other. */
export function codeOfServer(thrown: unknown): string {
  return isSent(thrown) ? thrown.code : "";
}

/**
 * True if a table has no number for another row (docs/billing.md#row-numbers): its sequence is at its end, or gives a number that is
 * too large for the column, or that another row has. The second has the code of any value that is out of range, and comes from
 * PostgreSQL's cast from bigint to integer; the third violates the key of a column `id`.
 */
export function lacksRowNumbers(thrown: unknown): boolean {
  const { routine, detail = "" } = (thrown ?? {}) as {
    readonly routine?: unknown;
    readonly detail?: unknown;
  };
  switch (codeOfServer(thrown)) {
    case "2200H":
      return true;
    case "22003":
      return routine === "int84";
    case "23505":
      return /\(id\)=\(-?\d+\)/.test(String(detail));
    default:
      return false;
  }
}

/** True if a balance is no amount, or would be too large for one (exact_credits, migration 029): upstream's REAL can be NaN or infinite. */
export function isNoAmount(thrown: unknown): boolean {
  return (
    codeOfServer(thrown) === "23514" &&
    (thrown as { readonly constraint?: unknown }).constraint === "exact_credits_range"
  );
}

function isSent(thrown: unknown): thrown is Error & { readonly code: string } {
  return (
    thrown instanceof Error &&
    "severity" in thrown &&
    "code" in thrown &&
    !(thrown instanceof OperatorError) &&
    typeof thrown.code === "string"
  );
}

/**
 * Why no session can be opened. `why` and `says` are the words of the server, of the driver or of the network. The
 * first group ends only if a setting or the server's configuration changes, the second can end by itself.
 */
export type Refusal =
  | { readonly kind: "wrong-password" | "no-database" }
  | {
      readonly kind:
        | "no-role"
        | "wants-tls"
        | "has-no-tls"
        | "certificate"
        | "not-allowed"
        | "pooler"
        | "read-only";
      readonly says: string;
    }
  | { readonly kind: "unreachable" | "not-ready" | "exhausted"; readonly why: string };

/** True for a refusal that can end by itself: the server starts, recovers, or is too busy. */
export function canPass(refusal: Refusal): refusal is Refusal & { readonly why: string } {
  return "why" in refusal;
}

/** The reason of a refusal in a few words, to put after a colon. */
export function reasonOf(refusal: Refusal): string {
  if ("why" in refusal) return refusal.why;
  return "says" in refusal ? refusal.says : refusal.kind;
}

/** OpenSSL's and Node's codes for a certificate that is not accepted. */
const CERTIFICATE = /^(?:CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|ERR_TLS_CERT|INVALID_|HOSTNAME_MISMATCH)/;
/** How poolers refuse start-up options: pgbouncer (08P01), and RDS Proxy (0A000). */
const NO_OPTIONS = /unsupported startup parameter|command-line options/i;

/**
 * Reads a failed connection attempt. PostgreSQL's words are stable where it has no code of its own: a missing line in
 * pg_hba.conf and a role that does not exist are both 28000 (its auth.c and miscinit.c).
 */
export function refusalOf(target: Pick<PostgresTarget, "password">, thrown: unknown): Refusal {
  const says = wordsOf(thrown);
  if (isSent(thrown)) {
    const byState = refusalOfState(thrown.code, says);
    if (byState !== null) return byState;
  }
  const code = thrown instanceof Error && "code" in thrown ? String(thrown.code) : "";
  if (CERTIFICATE.test(code)) return { kind: "certificate", says };
  if (/server does not support SSL/i.test(says)) return { kind: "has-no-tls", says };
  // Without a password, the driver fails before the server can refuse it.
  if (target.password === "" && /password must be/.test(says)) return { kind: "wrong-password" };
  return { kind: "unreachable", why: says };
}

function refusalOfState(code: string, says: string): Refusal | null {
  if (NO_OPTIONS.test(says)) return { kind: "pooler", says };
  if (code === "28P01") return { kind: "wrong-password" };
  if (code === "28000") {
    // The server adds "no encryption" whether or not an encrypted connection would be let in.
    if (/pg_hba/.test(says))
      return { kind: /no encryption|SSL off/.test(says) ? "wants-tls" : "not-allowed", says };
    return { kind: /\brole\b/.test(says) ? "no-role" : "not-allowed", says };
  }
  if (code === "3D000") return { kind: "no-database" };
  if (code === "42501") return { kind: "not-allowed", says };
  if (code.startsWith("53")) return { kind: "exhausted", why: says };
  return code === "57P03" ? { kind: "not-ready", why: says } : null;
}

function wordsOf(thrown: unknown): string {
  if (thrown instanceof AggregateError && thrown.errors.length > 0)
    return [...new Set(thrown.errors.map(messageOf))].join(", ");
  return messageOf(thrown);
}

/** The texts of an error about a refusal: what, why and what to do, without the password. */
export function describeRefusal(target: PostgresTarget, refusal: Refusal): RefusalTexts {
  const where = `PostgreSQL at ${target.host}:${target.port}`;
  const texts = TEXTS[refusal.kind]({ target, where, why: reasonOf(refusal) });
  return "says" in refusal ? { ...texts, why: `It says: ${refusal.says}.` } : texts;
}

type RefusalTexts = Pick<OperatorErrorFields, "exit" | "what" | "remedy"> & { readonly why?: string };

type Describe = (facts: {
  readonly target: PostgresTarget;
  readonly where: string;
  readonly why: string;
}) => RefusalTexts;

const TEXTS: Readonly<Record<Refusal["kind"], Describe>> = {
  "wrong-password": ({ target, where }) => ({
    exit: "settings",
    what: `${where} refuses user "${target.user}" for database "${target.database}".`,
    why: "PostgreSQL does not accept POSTGRES_USER and POSTGRES_PASSWORD for this database.",
    remedy: "Set POSTGRES_PASSWORD to the password that the database was created with.",
  }),
  "no-database": ({ target, where }) => ({
    exit: "settings",
    what: `${where} has no database "${target.database}".`,
    remedy: "Correct POSTGRES_DB, or create that database.",
  }),
  "no-role": ({ target, where }) => ({
    exit: "settings",
    what: `${where} has no user "${target.user}" that may log in.`,
    remedy: "Correct POSTGRES_USER, or create that role with LOGIN.",
  }),
  "wants-tls": ({ where }) => ({
    exit: "settings",
    what: `${where} refuses this connection, which is not encrypted.`,
    remedy:
      "If it requires TLS, pass --set POSTGRES_SSL=verify-full (with POSTGRES_SSL_CA for a private CA), or --set POSTGRES_SSL=require, which does not check who answers. If it does not, allow this machine in its pg_hba.conf.",
  }),
  "has-no-tls": ({ where }) => ({
    exit: "settings",
    what: `${where} does not encrypt, but POSTGRES_SSL requires it.`,
    remedy: "Turn TLS on in that server (ssl = on), or pass --set POSTGRES_SSL=disable.",
  }),
  certificate: ({ where }) => ({
    exit: "settings",
    what: `The certificate of ${where} is not accepted.`,
    remedy:
      "If its CA is a private one, pass --set POSTGRES_SSL_CA=PATH. The name in the certificate must be POSTGRES_HOST, and it must not have expired.",
  }),
  "not-allowed": ({ target, where }) => ({
    exit: "settings",
    what: `${where} does not let user "${target.user}" connect to database "${target.database}" from this machine.`,
    remedy: "Allow it there (pg_hba.conf, or GRANT CONNECT ON DATABASE), then run again.",
  }),
  pooler: ({ target }) => ({
    exit: "settings",
    what: `A connection pooler answers at ${target.host}:${target.port}, not PostgreSQL itself.`,
    remedy:
      "Set POSTGRES_HOST and POSTGRES_PORT to PostgreSQL's own address, its direct port. Migrations hold a lock in their session, which a pooler shares with other sessions.",
  }),
  "read-only": ({ where }) => ({
    exit: "settings",
    what: `${where} is read-only.`,
    remedy:
      "Set POSTGRES_HOST to the primary server. If this one is being promoted, wait until that is done, then run again.",
  }),
  "not-ready": ({ where, why }) => ({
    exit: "unavailable",
    what: `${where} is not ready: ${why}.`,
    remedy: "Wait until it has started or recovered (its log says how far it is), then run again.",
  }),
  exhausted: ({ where, why }) => ({
    exit: "unavailable",
    what: `${where} accepts no further session: ${why}.`,
    remedy: "End unneeded sessions there, or raise max_connections, then run again.",
  }),
  unreachable: ({ where, why }) => ({
    exit: "unavailable",
    what: `${where} can't be reached: ${why}.`,
    remedy:
      "Check that PostgreSQL runs and that POSTGRES_HOST and POSTGRES_PORT are correct, then run again.",
  }),
};
