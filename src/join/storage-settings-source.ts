import type { World } from "../world.ts";
import type { Problem } from "../errors.ts";
import { gibibytes } from "../units.ts";
import { type EnvFile, findEntry } from "../settings/env-file.ts";
import { resolveSettings, type Settings } from "../settings/settings.ts";
import { STORAGE_NAMES } from "../settings/storage-layout.ts";
import { offeredSize, parseSize } from "../settings/storage-size.ts";
import { nodeNameOf, STORAGE_SETTINGS } from "../settings/storage.ts";

const USUAL_DOCKER_ROOT = "/var/lib/docker";

/** Resolves the settings of a storage node again and again, with more and more flags. */
export interface StorageSource {
  resolve(flags: ReadonlyMap<string, string>): {
    readonly settings: Settings;
    readonly problems: readonly Problem[];
  };
  /** What `.env` has, whatever this run is given. */
  saved(key: string): string | undefined;
}

/** Looks at what settings depend on: the machine's name, and the disk that blocks will lie on (Docker's usual one without root). */
export async function openStorageSource(
  { host, hostname, environment }: World,
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
  // Blocks that are here already take their part of the disk.
  const room = volume === null ? space.freeBytes : space.totalBytes;
  return {
    resolve(flags) {
      const { settings, problems } = resolveSettings(specs, { flags, environment, saved });
      return { settings, problems: [...problems, ...compareSize(settings, room, root)] };
    },
    saved(key) {
      const value = findEntry(saved, key)?.value;
      return value !== undefined && "text" in value && value.text !== "" ? value.text : undefined;
    },
  };
}

function compareSize(settings: Settings, roomBytes: number, root: string): readonly Problem[] {
  const value = settings.get("KUBO_STORAGE_MAX")?.value;
  const wished = value === undefined ? null : parseSize(value);
  if (value === undefined || wished === null || wished <= roomBytes) return [];
  const what = `KUBO_STORAGE_MAX is ${value}, but ${root} has room for ${gibibytes(roomBytes)}.`;
  return [{ subject: "KUBO_STORAGE_MAX", what, remedy: "Give less, or mount a larger disk there." }];
}
