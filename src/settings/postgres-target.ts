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

/** The connection to the database with the current values; null if there is no password. */
export function postgresTarget(values: Values): PostgresTarget | null {
  const password = values("POSTGRES_PASSWORD");
  if (password === undefined) return null;
  const sslCa = values("POSTGRES_SSL_CA");
  return {
    host: values("POSTGRES_HOST") ?? "127.0.0.1",
    port: Number(values("POSTGRES_PORT") ?? "5432"),
    database: values("POSTGRES_DB") ?? "pinning_service",
    user: values("POSTGRES_USER") ?? "pinning_user",
    password,
    ssl: sslModeOf(values("POSTGRES_SSL")),
    ...(sslCa === undefined ? {} : { sslCa }),
  };
}
