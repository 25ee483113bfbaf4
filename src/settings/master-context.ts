import { OperatorError } from "../errors.ts";
import type { MasterLayout } from "./master-layout.ts";
import type { NodeContext, Values } from "./node-context.ts";
import type { PostgresTarget } from "./master.ts";

/** What the steps of a master are made from. */
export interface MasterContext extends NodeContext {
  readonly layout: MasterLayout;
  /** The absolute path of the node that runs us; cron calls the same. */
  readonly nodePath: string;
  /** `--provision-writer`, or the answer to its question. */
  readonly provisionWriter: boolean;
  /** The volume that holds, or will hold, the database. */
  readonly postgresVolume: string;
}

/** True where POSTGRES_HOST names a database on another machine: none is made here then. */
export function isDatabaseElsewhere(values: Values): boolean {
  return !["127.0.0.1", "localhost", "::1"].includes(values("POSTGRES_HOST") ?? "127.0.0.1");
}

/** How to reach the database with the values as they stand; null while there is no password. */
export function postgresTarget(values: Values): PostgresTarget | null {
  const password = values("POSTGRES_PASSWORD");
  if (password === undefined) return null;
  return {
    host: values("POSTGRES_HOST") ?? "127.0.0.1",
    port: Number(values("POSTGRES_PORT") ?? "5432"),
    database: values("POSTGRES_DB") ?? "pinning_service",
    user: values("POSTGRES_USER") ?? "pinning_user",
    password,
    ssl: values("POSTGRES_SSL") === "true",
  };
}

/** The same, for steps that come after env-file, where a password must exist. */
export function requireTarget(values: Values, context: MasterContext): PostgresTarget {
  const target = postgresTarget(values);
  if (target !== null) return target;
  throw new OperatorError({
    exit: "settings",
    what: `${context.layout.envFile} holds no POSTGRES_PASSWORD.`,
    remedy: "Run join-as-master again: it recovers the password or says how to get it back.",
  });
}
