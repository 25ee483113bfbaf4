import { pemOfCertificates } from "./certificates.ts";
import { RULES } from "./rules.ts";
import type { SettingSpec } from "./settings.ts";

/** The connection to one database, from POSTGRES_*. `password` never appears in an error. */
export interface PostgresTarget {
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly user: string;
  readonly password: string;
  /** `require` encrypts, and checks the certificate only if `sslCa` is given. `verify-full` also checks the host's name. */
  readonly ssl: SslMode;
  /** The path of a PEM file with the trusted CAs. */
  readonly sslCa?: string;
  /** The trusted CAs themselves, as PEM: those of an invite. */
  readonly sslCaPem?: string;
}

/** How a connection to Postgres is encrypted; false: not at all. The words are those of libpq's `sslmode`. */
export type SslMode = false | "require" | "verify-full";

/** The mode that POSTGRES_SSL names. 0.1.0 knew only `true`, which means `require`, and `false`. */
export function sslModeOf(value: string | undefined): SslMode {
  if (value === "verify-full") return value;
  return value === "require" || value === "true" ? "require" : false;
}

/** The current value of a setting, by its key. */
type Values = (key: string) => string | undefined;

const HERE = ["127.0.0.1", "localhost", "::1"];

/** True if POSTGRES_HOST is another machine: then no database is created here. */
export function isDatabaseElsewhere(values: Values): boolean {
  return !HERE.includes(values("POSTGRES_HOST") ?? "127.0.0.1");
}

/** The address at which other machines reach the Postgres of this one; null if none does. */
export function postgresBindOf(values: Values): string | null {
  return isDatabaseElsewhere(values) ? null : (values("POSTGRES_BIND") ?? null);
}

/**
 * How this machine encrypts. A Postgres that other machines reach lets nobody in without TLS: it can't tell them from this
 * machine, since Docker can replace the address of a client by its own.
 */
export function databaseSslOf(values: Values): SslMode {
  const mode = sslModeOf(values("POSTGRES_SSL"));
  return mode === false && postgresBindOf(values) !== null ? "require" : mode;
}

/** The connection to the database with the current values; null if there is no password. */
export function postgresTarget(values: Values): PostgresTarget | null {
  const password = values("POSTGRES_PASSWORD");
  if (password === undefined) return null;
  const sslCa = values("POSTGRES_SSL_CA");
  const certificates = values("POSTGRES_CA");
  return {
    host: values("POSTGRES_HOST") ?? "127.0.0.1",
    port: Number(values("POSTGRES_PORT") ?? "5432"),
    database: values("POSTGRES_DB") ?? "pinning_service",
    user: values("POSTGRES_USER") ?? "pinning_user",
    password,
    ssl: databaseSslOf(values),
    ...(sslCa === undefined ? {} : { sslCa }),
    ...(certificates === undefined ? {} : { sslCaPem: pemOfCertificates(certificates) }),
  };
}

/** The settings of the database, in the order of `.env`. */
export const POSTGRES_SETTINGS: readonly SettingSpec[] = [
  {
    key: "POSTGRES_HOST",
    about: "host of the database; if it is another machine, no Postgres is created here",
    rule: RULES.host,
    bound: true,
    byDefault: "127.0.0.1",
  },
  { key: "POSTGRES_PORT", about: "port of the database", rule: RULES.port, bound: true, byDefault: "5432" },
  {
    key: "POSTGRES_DB",
    about: "name of the database",
    rule: RULES.identifier,
    bound: true,
    byDefault: "pinning_service",
  },
  {
    key: "POSTGRES_USER",
    about: "owner of the database",
    rule: RULES.identifier,
    bound: true,
    byDefault: "pinning_user",
  },
  {
    key: "POSTGRES_PASSWORD",
    about: "password of the database owner",
    rule: RULES.secret,
    secret: true,
    immutable: true,
    generated: { kind: "token", characters: 40 },
  },
  {
    key: "POSTGRES_SSL",
    about:
      "TLS to the database, as libpq has it: disable (or false), require (encrypted, the certificate is not checked) or verify-full",
    rule: RULES.sslMode,
    byDefault: "false",
  },
  {
    key: "POSTGRES_SSL_CA",
    about:
      "path of the PEM file with the CA of the database's certificate; if not set, verify-full trusts this system's CAs",
    rule: RULES.path,
  },
  {
    key: "POSTGRES_CA",
    about: "the CA of the database's certificate, from the invite of another master",
    rule: RULES.certificates,
  },
  {
    key: "POSTGRES_BIND",
    about:
      "a private address of this machine, at which other masters reach the Postgres that fula-node made here, with TLS only; if not set, this machine alone reaches it",
    rule: RULES.privateAddress,
  },
];
