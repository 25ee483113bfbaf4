import type { Evidence, Foreign } from "../engine/step.ts";
import { OperatorError } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { type EnvFile, parseEnvFile } from "./env-file.ts";
import { isOurs, type MasterLayout } from "./layout.ts";
import { postgresTarget, type PostgresTarget } from "./postgres-target.ts";
import { mayBeLost, type Recoverable } from "./secrets.ts";
import { savedValue, type Settings, type SettingSpec, VERSION_KEY } from "./settings.ts";

/** The paths that every kind of node has. All are absolute. */
export interface NodeLayout {
  readonly baseDir: string;
  readonly envFile: string;
  readonly composeFile: string;
  readonly cliDir: string;
  /** The symbolic link to the installed version. Cron and people use it. */
  readonly cliCurrent: string;
  /** The images that a run is writing. It exists only meanwhile. */
  readonly unfinishedImages: string;
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
  /** The absolute path of the Node.js program that cron runs fula-node with. */
  readonly nodePath: string;
  /** True for `--provision-writer`, or if the operator agreed when asked. */
  readonly provisionWriter: boolean;
  /** The volume that contains the database, or will contain it. */
  readonly postgresVolume: string;
  /** True while a restore from a backup goes on: its files are in place. */
  readonly isRestoring: boolean;
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
 * Reads `.env`; a file that does not exist counts as empty. Throws (`settings`) if a line is not valid: a file
 * that can't be parsed is never taken for an empty one.
 */
export async function readEnvFile(
  { files }: Pick<HostReader, "files">,
  path: string,
): Promise<EnvFile & { ok: true }> {
  const file = parseEnvFile((await files.readText(path)) ?? "");
  if (file.ok) return file;
  throw new OperatorError({
    exit: "settings",
    what: `Line ${file.line} of ${path} is not valid: ${file.what}.`,
    why: "fula-node does not guess what the line means: a setting or a secret could be lost.",
    remedy: "Correct that line, or put a # before it, then run again.",
  });
}

/**
 * Reads the values that steps work with. The order is: flags, `.env` as it is now (generated values are only
 * there), the environment, lost values read back from our containers, defaults. A value that this run releases
 * no longer counts, even before it is removed from the file. Throws (`settings`) if `.env` is not valid.
 */
export async function readValues(host: HostReader, context: NodeContext): Promise<Values> {
  const file = await readEnvFile(host, context.layout.envFile);
  const { settings } = context;
  const saved = (key: string): string | undefined => {
    const value = savedValue(file, key);
    return value === settings.get(key)?.released ? undefined : value;
  };
  const isLost = ({ key }: Recoverable) =>
    saved(key) === undefined && (settings.get(key)?.origin ?? "default") === "default";
  const recovered = await readContainerEnv(host, { ...context, saved: file }, isLost);
  return (key) => {
    const setting = settings.get(key);
    if (setting?.origin === "flag") return setting.value;
    const known = saved(key);
    if (known !== undefined) return known;
    if (setting !== undefined && setting.origin !== "default") return setting.value;
    return recovered.get(key)?.value ?? setting?.value;
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

/** Reads settings back from the environment of containers with our label, if `.env` may have lost them. */
export async function readContainerEnv(
  host: HostReader,
  { recoverable, specs, saved }: Pick<NodeContext, "recoverable" | "specs"> & Saved,
  isWanted: (one: Recoverable) => boolean = () => true,
): Promise<ContainerEnv> {
  const found = new Map<string, { name: string; value: string }>();
  const wanted = recoverable.filter(isWanted);
  const names = [...new Set(wanted.map(({ container }) => container))];
  const looked = await Promise.all(names.map((name) => host.docker.container(name)));
  const ours = looked.filter((container) => container !== null).filter(isOurs);
  const isEnvLost = savedValue(saved, VERSION_KEY) === undefined;
  for (const { key, container: name, knownAs = key } of wanted) {
    const value = ours.find((container) => container.name === name)?.env[knownAs];
    if (value === undefined || value === "" || found.has(key)) continue;
    const spec = specs.find((one) => one.key === key);
    if (spec === undefined || mayBeLost(spec, value, isEnvLost)) found.set(key, { name, value });
  }
  return found;
}

interface Saved {
  /** `.env` as it is now. */
  readonly saved: EnvFile & { ok: true };
}

/** Calls `attempt` until it returns a value, and returns that; null if the deadline passes first. */
export async function poll<T>(
  host: HostReader,
  deadlineMs: number,
  attempt: () => Promise<T | null>,
): Promise<T | null> {
  const until = host.clock.monotonicMs() + deadlineMs;
  for (;;) {
    const value = await attempt();
    if (value !== null || host.clock.monotonicMs() >= until) return value;
    await host.clock.wait(100);
  }
}
