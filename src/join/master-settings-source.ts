import type { World } from "../world.ts";
import type { Problem } from "../errors.ts";
import { findConflicts } from "../settings/master-conflicts.ts";
import { MASTER_SETTINGS } from "../settings/master.ts";
import { resolveSettings, type Settings } from "../settings/settings.ts";
import { readSavedSettings } from "./settings-source.ts";

/**
 * Puts together the settings of a master from flags, environment, `.env` and defaults. Gives every
 * problem at once. Throws (`settings`) where `.env` itself can't be read or understood. Without root,
 * `.env` is taken for empty: preflight refuses anyway, and so that it can name all that is wrong.
 */
export async function readMasterSettings(
  world: World,
  envFile: string,
  flags: ReadonlyMap<string, string>,
): Promise<{ readonly settings: Settings; readonly problems: readonly Problem[] }> {
  const saved = await readSavedSettings(world, envFile);
  const peername = world.hostname.replaceAll(/[^A-Za-z0-9._-]/g, "-").replace(/^[^A-Za-z0-9]+/, "");
  const specs = MASTER_SETTINGS.map((spec) =>
    spec.key === "CLUSTER_PEERNAME" ? { ...spec, byDefault: peername.slice(0, 64) || "master" } : spec,
  );
  const { settings, problems } = resolveSettings(specs, { flags, environment: world.environment, saved });
  return { settings, problems: [...problems, ...findConflicts(settings)] };
}
