import type { Fragments } from "../docker/compose-render.ts";
import { OperatorError, type Problem } from "../errors.ts";
import type { HostReader } from "../host.ts";
import { findOwnerFaults, judgeOwner } from "../machine/owner-check.ts";
import { isListenable } from "../settings/address.ts";
import { readEnvFile } from "../settings/context.ts";
import type { EnvFile } from "../settings/env-file.ts";
import { STORAGE_NAMES } from "../settings/layout.ts";
import { findConflicts, findStorageConflicts } from "../settings/conflicts.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import { parseSize, RULES } from "../settings/rules.ts";
import {
  findUnclear,
  type ResolvedSettings,
  resolveSettings,
  savedValue,
  type Settings,
  type SettingSources,
} from "../settings/settings.ts";
import { nodeNameOf, offeredSize, STORAGE_SETTINGS } from "../settings/storage.ts";
import { gibibytes } from "../units.ts";
import type { JoinDeps } from "./join-run.ts";

/**
 * Reads the saved `.env`. Throws (`settings`) if it can't be read or is not valid. Without root it counts as
 * empty: preflight refuses the run anyway, and can then report every problem.
 */
export async function readSavedSettings(
  { host }: Pick<JoinDeps, "host">,
  envFile: string,
): Promise<EnvFile & { ok: true }> {
  if (host.system.uid() !== 0) return { ok: true, text: "", entries: [], overridden: [] };
  try {
    await requireTrusted(host, envFile);
    return await readEnvFile(host, envFile);
  } catch (thrown) {
    if (!(thrown instanceof OperatorError) || thrown.exit === "settings" || thrown.exit === "preflight")
      throw thrown;
    throw new OperatorError({
      exit: "settings",
      what: `${envFile} exists, but can't be read.`,
      why: thrown.why ?? thrown.what,
      remedy: thrown.remedy ?? "Restore this file from your backup as plain UTF-8 text, then run again.",
      cause: thrown,
    });
  }
}

/**
 * Finds problems in keys of `.env` that compose documents use and that are not settings: values that Compose would
 * read differently. So every value that a container gets is known before the first write.
 */
export async function findUnclearKeys(
  { host, packageDir }: Pick<JoinDeps, "host" | "packageDir">,
  saved: EnvFile & { ok: true },
  kind: "master" | "storage-node",
): Promise<readonly Problem[]> {
  // Loaded here: what reads settings alone needs no YAML.
  const [{ namedKeys, MASTER_FRAGMENTS, WRITER_FRAGMENTS, STORAGE_FRAGMENTS }, { readFragments }] =
    await Promise.all([import("../docker/compose-render.ts"), import("./prepare-master.ts")]);
  const names = kind === "master" ? [...MASTER_FRAGMENTS, ...WRITER_FRAGMENTS] : STORAGE_FRAGMENTS;
  const documents: Fragments<string> = await readFragments<string>(host, packageDir, names);
  const named = new Set(Object.values(documents).flatMap(namedKeys));
  return findUnclear(kind === "master" ? MASTER_SETTINGS : STORAGE_SETTINGS, saved, [...named]);
}

/**
 * Resolves the settings of a master from flags, environment, `.env` and defaults. Returns every problem at once.
 * Throws (`settings`) if `.env` itself can't be read or is not valid. Without root, `.env` counts as empty:
 * preflight refuses the run anyway, and can then report every problem.
 */
export async function readMasterSettings(
  deps: Pick<JoinDeps, "host" | "hostname" | "environment" | "version">,
  envFile: string,
  flags: Overrides,
): Promise<ResolvedSettings> {
  const saved = await readSavedSettings(deps, envFile);
  const peername = deps.hostname.replaceAll(/[^A-Za-z0-9._-]/g, "-").replace(/^[^A-Za-z0-9]+/, "");
  const specs = MASTER_SETTINGS.map((spec) =>
    spec.key === "CLUSTER_PEERNAME" ? { ...spec, byDefault: peername.slice(0, 64) || "master" } : spec,
  );
  const resolved = resolveSettings(specs, { ...sourcesOf(flags), ...deps, saved });
  return { ...resolved, problems: [...resolved.problems, ...findConflicts(resolved.settings)] };
}

/** The values that override `.env` in a join; "none" for every other verb. */
export type Overrides = ReadonlyMap<string, string> | "none";

/** Only a join takes a value from the environment, since only a join saves it. */
function sourcesOf(overrides: Overrides): Pick<SettingSources, "flags" | "adoptsEnvironment"> {
  return overrides === "none"
    ? { flags: new Map(), adoptsEnvironment: false }
    : { flags: overrides, adoptsEnvironment: true };
}

/** Prints the environment values that are not used, so that nobody relies on them. */
export function warnOfIgnored(
  { reporter }: Pick<JoinDeps, "reporter">,
  { warnings }: Pick<ResolvedSettings, "warnings">,
): void {
  for (const text of warnings) reporter.listen({ type: "warning", text });
}

const USUAL_DOCKER_ROOT = "/var/lib/docker";

/** Resolves the settings of a storage node. A join calls it several times, with more flags each time. */
export interface StorageSource {
  resolve(flags: Overrides): ResolvedSettings;
  /** The value in `.env`, regardless of flags and environment. */
  saved(key: string): string | undefined;
}

/** Reads what the defaults depend on: the host name, and the disk for the blocks (without root, the disk of Docker's default directory). */
export async function openStorageSource(
  {
    host,
    hostname,
    environment,
    version,
  }: Pick<JoinDeps, "hostname" | "environment" | "version"> & { readonly host: HostReader },
  saved: EnvFile & { ok: true },
): Promise<StorageSource> {
  const isRoot = host.system.uid() === 0;
  const root = (isRoot ? await host.docker.version() : null)?.rootDirectory ?? USUAL_DOCKER_ROOT;
  const [space, volume] = await Promise.all([
    host.files.space(root),
    isRoot ? host.docker.volume(STORAGE_NAMES.kuboVolume) : null,
  ]);
  const name = nodeNameOf(hostname);
  const defaults: Readonly<Record<string, string>> = {
    KUBO_STORAGE_MAX: offeredSize(space.freeBytes),
    ...(name === null ? {} : { CLUSTER_PEERNAME: name }),
  };
  const specs = STORAGE_SETTINGS.map((spec) => {
    const byDefault = defaults[spec.key];
    return byDefault === undefined ? spec : { ...spec, byDefault };
  });
  // Blocks that already exist are part of the limit, so their space counts as available.
  const availableBytes = volume === null ? space.freeBytes : space.totalBytes;
  return {
    resolve(flags) {
      const resolved = resolveSettings(specs, { ...sourcesOf(flags), environment, version, saved });
      const { settings, problems } = resolved;
      return {
        ...resolved,
        problems: [
          ...problems,
          ...findStorageConflicts(settings),
          ...compareSize(settings, availableBytes, root),
          ...checkBind(settings, host.system.addresses()),
        ],
      };
    },
    saved(key) {
      return savedValue(saved, key);
    },
  };
}

/** A server can only listen on an address of this machine. An invalid value is a problem already. */
function checkBind(settings: Settings, own: readonly string[]): readonly Problem[] {
  const key = "INGEST_BIND";
  const value = settings.get(key)?.value;
  if (value === undefined || !RULES.bindAddress.holds(value) || isListenable(value, own)) return [];
  const what = `${key} is ${value}, which is not an address of this machine.`;
  return [{ subject: key, what, remedy: `Its addresses are ${own.join(", ")}. For all of them, set ::.` }];
}

function compareSize(settings: Settings, availableBytes: number, root: string): readonly Problem[] {
  const value = settings.get("KUBO_STORAGE_MAX")?.value;
  const desired = value === undefined ? null : parseSize(value);
  if (value === undefined || desired === null || desired <= availableBytes) return [];
  const what = `KUBO_STORAGE_MAX is ${value}, but ${root} has only ${gibibytes(availableBytes)}.`;
  return [{ subject: "KUBO_STORAGE_MAX", what, remedy: "Set a smaller size, or mount a larger disk there." }];
}

/** Throws (`preflight`) if somebody else could have written the settings: root pulls and starts what they name. */
async function requireTrusted({ files }: HostReader, envFile: string): Promise<void> {
  const stat = await files.stat(envFile);
  if (stat === null) return;
  const faults =
    stat.kind === "symlink"
      ? await findOwnerFaults(files, envFile)
      : [judgeOwner(envFile, stat)].filter((fault) => fault !== null);
  if (faults.length === 0) return;
  throw new OperatorError({
    exit: "preflight",
    what: `The settings in ${envFile} can't be trusted: ${faults.map(({ sentence }) => sentence).join("; ")}.`,
    why: "Somebody else could have changed a setting, and root would use it.",
    remedy: `Read the file. If it is right, run ${faults.map(({ repair }) => repair).join(" && ")}, then run again.`,
  });
}

/** The settings, where those that an invite or a pool gave say so: the plan shows where each comes from. */
export function markOffered(
  settings: Settings,
  { values, by }: { readonly values: ReadonlyMap<string, string>; readonly by: string },
  given: ReadonlyMap<string, string>,
): Settings {
  return new Map(
    [...settings].map(([key, setting]) =>
      values.has(key) && !given.has(key) && setting.origin === "flag"
        ? [key, { ...setting, offeredBy: by }]
        : [key, setting],
    ),
  );
}
