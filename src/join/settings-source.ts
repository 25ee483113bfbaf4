import type { Fragments } from "../docker/compose-render.ts";
import { OperatorError, type Problem } from "../errors.ts";
import { type EnvFile, findEntry, parseEnvFile } from "../settings/env-file.ts";
import { STORAGE_NAMES } from "../settings/layout.ts";
import { findConflicts, MASTER_SETTINGS } from "../settings/master.ts";
import { parseSize } from "../settings/rules.ts";
import { findUnclear, resolveSettings, type Settings, type SettingSpec } from "../settings/settings.ts";
import { nodeNameOf, offeredSize, STORAGE_SETTINGS } from "../settings/storage.ts";
import { gibibytes } from "../units.ts";
import type { JoinDeps } from "./join-run.ts";

/**
 * Splits `--set KEY=VALUE`. Throws (`usage`) for any other form, and for a key with two different values, since
 * one of them would be lost. The error contains no value, and nothing that may be one.
 */
export function parseAssignments(pairs: readonly string[]): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  const problems: Problem[] = [];
  for (const [index, pair] of pairs.entries()) {
    const [, key, value] = /^([A-Za-z_][A-Za-z0-9_]*)=(.*)$/s.exec(pair) ?? [];
    if (key === undefined || value === undefined) {
      const what = `The ${ordinal(index + 1)} --set is not of the form KEY=VALUE.`;
      problems.push({ subject: "--set", what, remedy: "For example: --set CLUSTERNAME=my-pool." });
    } else if ((values.get(key) ?? value) === value) values.set(key, value);
    else {
      const what = `${key} has two different values in --set.`;
      problems.push({ subject: key, what, remedy: "Pass it once." });
    }
  }
  if (problems.length === 0) return values;
  throw new OperatorError({ exit: "usage", what: "Some --set flags are invalid.", problems });
}

/**
 * Reads the saved `.env`. Throws (`settings`) if it can't be read or is not valid. Without root it counts as
 * empty: preflight refuses the run anyway, and can then report every problem.
 */
export async function readSavedSettings(
  deps: Pick<JoinDeps, "host">,
  envFile: string,
): Promise<EnvFile & { ok: true }> {
  const saved = parseEnvFile(await readSaved(deps, envFile));
  if (saved.ok) return saved;
  throw new OperatorError({
    exit: "settings",
    what: `Line ${saved.line} of ${envFile} is not valid: ${saved.what}.`,
    why: "fula-node does not guess what the line means: a setting or a secret could be lost.",
    remedy: "Correct that line, or put a # before it, then run again.",
  });
}

/**
 * Finds problems in keys of `.env` that compose documents use and that are not settings: values that Compose would
 * read differently. So every value that a container gets is known before the first write.
 */
export async function findUnclearKeys(
  { host, packageDir }: Pick<JoinDeps, "host" | "packageDir">,
  saved: EnvFile & { ok: true },
  { specs, fragments }: { readonly specs: readonly SettingSpec[]; readonly fragments: readonly string[] },
): Promise<readonly Problem[]> {
  // Loaded here: what reads settings alone needs no YAML.
  const [{ namedKeys }, { readFragments }] = await Promise.all([
    import("../docker/compose-render.ts"),
    import("./prepare-master.ts"),
  ]);
  const documents: Fragments<string> = await readFragments(host, packageDir, fragments);
  const named = new Set(Object.values(documents).flatMap(namedKeys));
  return findUnclear(specs, saved, [...named]);
}

/**
 * Resolves the settings of a master from flags, environment, `.env` and defaults. Returns every problem at once.
 * Throws (`settings`) if `.env` itself can't be read or is not valid. Without root, `.env` counts as empty:
 * preflight refuses the run anyway, and can then report every problem.
 */
export async function readMasterSettings(
  deps: Pick<JoinDeps, "host" | "hostname" | "environment">,
  envFile: string,
  flags: ReadonlyMap<string, string>,
): Promise<{ readonly settings: Settings; readonly problems: readonly Problem[] }> {
  const saved = await readSavedSettings(deps, envFile);
  const peername = deps.hostname.replaceAll(/[^A-Za-z0-9._-]/g, "-").replace(/^[^A-Za-z0-9]+/, "");
  const specs = MASTER_SETTINGS.map((spec) =>
    spec.key === "CLUSTER_PEERNAME" ? { ...spec, byDefault: peername.slice(0, 64) || "master" } : spec,
  );
  const { settings, problems } = resolveSettings(specs, { flags, environment: deps.environment, saved });
  return { settings, problems: [...problems, ...findConflicts(settings)] };
}

const USUAL_DOCKER_ROOT = "/var/lib/docker";

/** Resolves the settings of a storage node. A join calls it several times, with more flags each time. */
export interface StorageSource {
  resolve(flags: ReadonlyMap<string, string>): {
    readonly settings: Settings;
    readonly problems: readonly Problem[];
  };
  /** The value in `.env`, regardless of flags and environment. */
  saved(key: string): string | undefined;
}

/** Reads what the defaults depend on: the host name, and the disk for the blocks (without root, the disk of Docker's default directory). */
export async function openStorageSource(
  { host, hostname, environment }: Pick<JoinDeps, "host" | "hostname" | "environment">,
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
      const { settings, problems } = resolveSettings(specs, { flags, environment, saved });
      return { settings, problems: [...problems, ...compareSize(settings, availableBytes, root)] };
    },
    saved(key) {
      const value = findEntry(saved, key)?.value;
      return value !== undefined && "text" in value && value.text !== "" ? value.text : undefined;
    },
  };
}

function compareSize(settings: Settings, availableBytes: number, root: string): readonly Problem[] {
  const value = settings.get("KUBO_STORAGE_MAX")?.value;
  const desired = value === undefined ? null : parseSize(value);
  if (value === undefined || desired === null || desired <= availableBytes) return [];
  const what = `KUBO_STORAGE_MAX is ${value}, but ${root} has only ${gibibytes(availableBytes)}.`;
  return [{ subject: "KUBO_STORAGE_MAX", what, remedy: "Set a smaller size, or mount a larger disk there." }];
}

async function readSaved({ host }: Pick<JoinDeps, "host">, envFile: string): Promise<string> {
  if (host.system.uid() !== 0) return "";
  try {
    return (await host.files.readText(envFile)) ?? "";
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    throw new OperatorError({
      exit: "settings",
      what: `${envFile} exists, but can't be read.`,
      why: thrown.why ?? thrown.what,
      remedy: thrown.remedy ?? "Restore this file from your backup as plain UTF-8 text, then run again.",
      cause: thrown,
    });
  }
}

function ordinal(number: number): string {
  return ["first", "second", "third"][number - 1] ?? `${number}th`;
}
