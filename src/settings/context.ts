import type { Evidence, Foreign } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { findEntry, parseEnvFile } from "./env-file.ts";
import { isOurs, type MasterLayout } from "./layout.ts";
import { postgresTarget, type PostgresTarget } from "./master.ts";
import type { Recoverable } from "./secrets.ts";
import type { Settings, SettingSpec } from "./settings.ts";

/** Where every kind of node keeps what all of them have; all paths are absolute. */
export interface NodeLayout {
  readonly baseDir: string;
  readonly envFile: string;
  readonly composeFile: string;
  readonly cliDir: string;
  /** The link to the installed version: what cron and people call. */
  readonly cliCurrent: string;
}

/** What the steps of any node are made from: plain data that is settled before the first probe. */
export interface NodeContext {
  /** Every setting that this kind of node knows, in the order in which `.env` lists them. */
  readonly specs: readonly SettingSpec[];
  readonly settings: Settings;
  readonly layout: NodeLayout;
  readonly version: string;
  /** The root of the running package: bin/, dist/, compose/, migrations/. */
  readonly packageDir: string;
  /** `--images ARCHIVE`. */
  readonly imagesArchive: string | null;
  /** What our own containers can tell where `.env` has lost it, the surest teller first. */
  readonly recoverable: readonly Recoverable[];
  /** Lower-case hex sha256 of a text. */
  readonly hash: (text: string) => string;
}

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

/** What is known of the data that a node's secrets were used for. */
export interface DataGuard {
  /** Where such data lives; null where there is none. */
  doesDataLive(host: HostReader): Promise<string | null>;
  /** How many rows depend on a secret; null where that can't be told. */
  countDependents(host: HostReader, key: string): Promise<number | null>;
  /** A halt where the values do not open the data that is there. */
  check(host: HostReader, evidence: Evidence): Promise<Foreign<never> | null>;
}

/** A setting's value as it stands: what this run was given, else what `.env` holds by now. */
export type Values = (key: string) => string | undefined;

/**
 * Reads the values that steps work with: flags and environment first, then `.env` as it is now (minted
 * values are only there), then what our containers know of lost ones, then defaults.
 */
export async function readValues(host: HostReader, context: NodeContext): Promise<Values> {
  const file = parseEnvFile((await host.files.readText(context.layout.envFile)) ?? "");
  const saved = (key: string): string | undefined => {
    const value = file.ok ? findEntry(file, key)?.value : undefined;
    return value !== undefined && "text" in value && value.text !== "" ? value.text : undefined;
  };
  const { settings, recoverable } = context;
  const isLost = ({ key }: Recoverable) =>
    saved(key) === undefined && (settings.get(key)?.origin ?? "default") === "default";
  const recovered: ContainerEnv = recoverable.some(isLost)
    ? await readContainerEnv(host, recoverable)
    : new Map();
  return (key) => {
    const setting = settings.get(key);
    if (setting !== undefined && setting.origin !== "default") return setting.value;
    return saved(key) ?? recovered.get(key)?.value ?? setting?.value;
  };
}

/** How to reach the database, for steps that come after env-file, where a password must exist. */
export function requireTarget(values: Values, context: MasterContext): PostgresTarget {
  const target = postgresTarget(values);
  if (target !== null) return target;
  throw new OperatorError({
    exit: "settings",
    what: `${context.layout.envFile} holds no POSTGRES_PASSWORD.`,
    remedy: "Run join-as-master again: it recovers the password or says how to get it back.",
  });
}

/** What the environments of our own containers know, by key. */
export type ContainerEnv = ReadonlyMap<string, { readonly name: string; readonly value: string }>;

/** Reads settings that data was made with back from the environments of containers with our label. */
export async function readContainerEnv(
  host: HostReader,
  recoverable: readonly Recoverable[],
): Promise<ContainerEnv> {
  const found = new Map<string, { name: string; value: string }>();
  const ours = (await host.docker.containers()).filter(isOurs);
  for (const { key, container: name, knownAs = key } of recoverable) {
    const value = ours.find((container) => container.name === name)?.env[knownAs];
    if (value !== undefined && value !== "" && !found.has(key)) found.set(key, { name, value });
  }
  return found;
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
