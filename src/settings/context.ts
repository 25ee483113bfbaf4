import type { Evidence, Foreign } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { findEntry, parseEnvFile } from "./env-file.ts";
import { isOurs, type MasterLayout } from "./layout.ts";
import { postgresTarget, type PostgresTarget } from "./master.ts";
import type { Recoverable } from "./secrets.ts";
import type { Settings, SettingSpec } from "./settings.ts";

/** The paths that every kind of node has. All are absolute. */
export interface NodeLayout {
  readonly baseDir: string;
  readonly envFile: string;
  readonly composeFile: string;
  readonly cliDir: string;
  /** The symbolic link to the installed version. Cron and people use it. */
  readonly cliCurrent: string;
}

/** The input of the steps of any node: plain data, complete before the first probe. */
export interface NodeContext {
  /** Every setting of this kind of node, in the order of `.env`. */
  readonly specs: readonly SettingSpec[];
  readonly settings: Settings;
  readonly layout: NodeLayout;
  readonly version: string;
  /** The root of the running package: bin/, dist/, compose/, migrations/. */
  readonly packageDir: string;
  /** `--images ARCHIVE`. */
  readonly imagesArchive: string | null;
  /** Settings that can be read back from our own containers if `.env` has lost them. The most reliable source comes first. */
  readonly recoverable: readonly Recoverable[];
  /** Lower-case hex sha256 of a text. */
  readonly hash: (text: string) => string;
}

/** The input of the steps of a master. */
export interface MasterContext extends NodeContext {
  readonly layout: MasterLayout;
  /** The absolute path of the Node.js program that runs fula-node. Cron uses the same one. */
  readonly nodePath: string;
  /** True for `--provision-writer`, or if the operator agreed when asked. */
  readonly provisionWriter: boolean;
  /** The volume that contains the database, or will contain it. */
  readonly postgresVolume: string;
}

/** Protects existing data whose secrets are in `.env`. */
export interface DataGuard {
  /** Where such data is; null if there is none. */
  findLiveData(host: HostReader): Promise<string | null>;
  /** How many rows depend on a secret; null if this is unknown. */
  countDependents(host: HostReader, key: string): Promise<number | null>;
  /** A halt if the values do not open the existing data, else null. */
  check(host: HostReader, evidence: Evidence): Promise<Foreign<never> | null>;
}

/** The current value of a setting: the one given to this run, else the one that `.env` now contains. */
export type Values = (key: string) => string | undefined;

/**
 * Reads the values that steps work with. The order is: flags and environment, `.env` as it is now (generated
 * values are only there), lost values read back from our containers, defaults.
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
  const recovered: ContainerEnv = await readContainerEnv(host, recoverable.filter(isLost));
  return (key) => {
    const setting = settings.get(key);
    if (setting !== undefined && setting.origin !== "default") return setting.value;
    return saved(key) ?? recovered.get(key)?.value ?? setting?.value;
  };
}

/** The connection to the database. For steps after env-file: throws (`settings`) if there is no password. */
export function requireTarget(values: Values, context: MasterContext): PostgresTarget {
  const target = postgresTarget(values);
  if (target !== null) return target;
  throw new OperatorError({
    exit: "settings",
    what: `${context.layout.envFile} has no POSTGRES_PASSWORD.`,
    remedy: "Run join-as-master again: it recovers the password, or prints how to get it back.",
  });
}

/** Settings found in the environment of our own containers, by key. `name` is the container. */
export type ContainerEnv = ReadonlyMap<string, { readonly name: string; readonly value: string }>;

/** Reads settings back from the environment of containers with our label. */
export async function readContainerEnv(
  host: HostReader,
  recoverable: readonly Recoverable[],
): Promise<ContainerEnv> {
  const found = new Map<string, { name: string; value: string }>();
  const names = [...new Set(recoverable.map(({ container }) => container))];
  const looked = await Promise.all(names.map((name) => host.docker.container(name)));
  const ours = looked.filter((container) => container !== null).filter(isOurs);
  for (const { key, container: name, knownAs = key } of recoverable) {
    const value = ours.find((container) => container.name === name)?.env[knownAs];
    if (value !== undefined && value !== "" && !found.has(key)) found.set(key, { name, value });
  }
  return found;
}

/** Calls `attempt` until it returns a value, and returns that; null if the deadline passes first. */
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
