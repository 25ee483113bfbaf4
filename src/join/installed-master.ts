import type { Cluster } from "../cluster/client.ts";
import { OperatorError } from "../errors.ts";
import { MASTER_BASE_DIR, masterLayout, type MasterLayout } from "../settings/master-layout.ts";
import { type PostgresTarget, postgresTarget } from "../settings/master.ts";
import type { Values } from "../settings/node-context.ts";
import type { World } from "../world.ts";
import { readMasterSettings } from "./settings-source.ts";

/** A master that was installed here: where it is, and its settings as `.env` has them. */
export interface InstalledMaster {
  readonly layout: MasterLayout;
  readonly values: Values;
}

/** Reads the settings of an installed master. Throws (`settings`) where none is, or they are wrong. */
export async function readInstalledMaster(
  world: World,
  baseDir: string | undefined,
): Promise<InstalledMaster> {
  const layout = masterLayout(baseDir ?? MASTER_BASE_DIR);
  if (world.host.system.uid() !== 0) {
    throw new OperatorError({
      exit: "preflight",
      what: "This needs root: the settings hold secrets.",
      remedy: "Run it with sudo.",
    });
  }
  if ((await world.host.files.stat(layout.envFile)) === null) {
    throw new OperatorError({
      exit: "settings",
      what: `There is no ${layout.envFile}, so no master is installed there.`,
      remedy: "Run join-as-master first, or give --base-dir.",
    });
  }
  const { settings, problems } = await readMasterSettings(world, layout.envFile, new Map());
  if (problems.length > 0) {
    throw new OperatorError({ exit: "settings", what: "The settings are not as they must be.", problems });
  }
  return { layout, values: (key) => settings.get(key)?.value };
}

/** Opens the master's own cluster peer; after `deadlineMs` whatever is under way there ends as unavailable. */
export function openOwnCluster(
  world: World,
  { values }: InstalledMaster,
  options: { readonly deadlineMs?: number; readonly connections?: number } = {},
): Cluster {
  const { deadlineMs, connections } = options;
  const basicAuth = values("CLUSTER_BASIC_AUTH");
  return world.openCluster({
    endpoint: values("IPFS_CLUSTER_API_ADDR") ?? "",
    ...(deadlineMs === undefined ? {} : { signal: AbortSignal.timeout(deadlineMs) }),
    ...(connections === undefined ? {} : { connections }),
    ...(basicAuth === undefined ? {} : { basicAuth }),
  });
}

/**
 * What a cluster is told apart by in snapshots: a hash of its secret, from which the secret can't be had
 * back. Null where the settings hold none.
 */
export function clusterIdOf(world: World, { values }: InstalledMaster): string | null {
  const secret = values("CLUSTER_SECRET");
  return secret === undefined || secret === ""
    ? null
    : world.hash(`fula-node cluster id\n${secret.toLowerCase()}`);
}

/** How to reach the master's database. Throws (`settings`) without a password. */
export function databaseOf({ layout, values }: InstalledMaster): PostgresTarget {
  const target = postgresTarget(values);
  if (target !== null) return target;
  throw new OperatorError({
    exit: "settings",
    what: `${layout.envFile} holds no POSTGRES_PASSWORD.`,
    remedy: "Run join-as-master again: it recovers the password or says how to get it back.",
  });
}
