import { OperatorError } from "../errors.ts";
import type { HostReader, PostgresTarget } from "../host/host.ts";
import { findEntry, parseEnvFile } from "../model/env-file.ts";
import type { MasterLayout } from "../model/master-layout.ts";
import { MASTER_SETTINGS } from "../model/master-settings.ts";
import type { Settings } from "../model/settings.ts";
import { readContainerEnv, type ContainerEnv } from "./container-env.ts";

/** What the steps of a master are made from: plain data that is settled before the first probe. */
export interface MasterContext {
  readonly settings: Settings;
  readonly layout: MasterLayout;
  readonly version: string;
  /** The root of the running package: bin/, dist/, compose/, migrations/. */
  readonly packageDir: string;
  /** The absolute path of the node that runs us; cron calls the same. */
  readonly nodePath: string;
  /** `--provision-writer`, or the answer to its question in an earlier run. */
  readonly provisionWriter: boolean;
  /** `--images ARCHIVE`. */
  readonly imagesArchive: string | null;
  /** The volume that holds, or will hold, the database. */
  readonly postgresVolume: string;
  /** Lower-case hex sha256 of a text. */
  readonly hash: (text: string) => string;
}

/** A setting's value as it stands: what this run was given, else what `.env` holds by now. */
export type Values = (key: string) => string | undefined;

/**
 * Reads the values that steps work with: flags and environment first, then `.env` as it is now (minted
 * values are only there), then what our containers know of lost ones, then defaults.
 */
export async function readValues(host: HostReader, context: MasterContext): Promise<Values> {
  const file = parseEnvFile((await host.files.readText(context.layout.envFile)) ?? "");
  const saved = (key: string): string | undefined => {
    const value = file.ok ? findEntry(file, key)?.value : undefined;
    return value !== undefined && "text" in value && value.text !== "" ? value.text : undefined;
  };
  const lacks = MASTER_SETTINGS.some(({ key, minted }) => minted !== undefined && saved(key) === undefined);
  const recovered: ContainerEnv =
    lacks || saved("POSTGRES_DB") === undefined ? await readContainerEnv(host) : new Map();
  return (key) => {
    const setting = context.settings.get(key);
    if (setting !== undefined && setting.origin !== "default") return setting.value;
    return saved(key) ?? recovered.get(key)?.value ?? setting?.value;
  };
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

/** The first value that a poll accepts; null when the deadline passes first. */
export async function poll<T>(
  host: HostReader,
  deadlineMs: number,
  attempt: () => Promise<T | null>,
): Promise<T | null> {
  const until = host.clock.now().getTime() + deadlineMs;
  for (;;) {
    const value = await attempt();
    if (value !== null || host.clock.now().getTime() >= until) return value;
    await host.clock.wait(100);
  }
}
