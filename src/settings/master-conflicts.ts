import type { Problem } from "../errors.ts";
import { findEdgeConflicts } from "./edge.ts";
import { isDatabaseElsewhere, sslModeOf } from "./postgres-target.ts";
import type { Settings } from "./settings.ts";

/** Finds settings of a master that are valid alone but not together. A key without a value is not checked here. */
export function findConflicts(settings: Settings): readonly Problem[] {
  return [
    ...compareFactors(settings),
    ...comparePorts(settings),
    ...compareSsl(settings),
    ...findEdgeConflicts(settings),
  ];
}

/** A CA that nothing checks would look like protection. */
function compareSsl(settings: Settings): readonly Problem[] {
  const subject = "POSTGRES_SSL_CA";
  if (!settings.has(subject) || sslModeOf(settings.get("POSTGRES_SSL")?.value) !== false) return [];
  const what = `${subject} is set, but POSTGRES_SSL is ${settings.get("POSTGRES_SSL")?.value ?? "not set"}: the connection would not be encrypted.`;
  return [{ subject, what, remedy: "Set POSTGRES_SSL=verify-full too, or remove POSTGRES_SSL_CA." }];
}

/** ipfs-cluster 1.1 does not start without these rules (its cluster_config.go, isReplicationFactorValid). */
function compareFactors(settings: Settings): readonly Problem[] {
  const min = settings.get("CLUSTER_REPLICATION_MIN");
  const max = settings.get("CLUSTER_REPLICATION_MAX");
  if (min === undefined || max === undefined) return [];
  const subject = "CLUSTER_REPLICATION_MIN";
  const remedy =
    "Set both, with the minimum not above the maximum. Or set both to -1 for a copy on every node.";
  if ((min.value === "-1") !== (max.value === "-1")) {
    const what = `${subject} is ${min.value} and CLUSTER_REPLICATION_MAX is ${max.value}: set both to -1, or neither.`;
    return [{ subject, what, remedy }];
  }
  if (Number(min.value) <= Number(max.value)) return [];
  const what = `${subject} (${min.value}) is higher than CLUSTER_REPLICATION_MAX (${max.value}).`;
  return [{ subject, what, remedy }];
}

const PORTS = [
  "POSTGRES_PORT",
  "PINNING_API_PORT",
  "PINNING_EDGE_PORT",
  "WEBUI_PORT",
  "PINNING_METRICS_PORT",
  "WEBUI_METRICS_PORT",
] as const;

function comparePorts(settings: Settings): readonly Problem[] {
  const isElsewhere = isDatabaseElsewhere((key) => settings.get(key)?.value);
  const keys = PORTS.filter((key) => !(key === "POSTGRES_PORT" && isElsewhere));
  return keys.flatMap((key, index) => {
    const port = settings.get(key)?.value;
    const other = keys.slice(0, index).find((earlier) => settings.get(earlier)?.value === port);
    if (port === undefined || other === undefined) return [];
    const what = `${key} and ${other} are both ${port}.`;
    return [{ subject: key, what, remedy: "Give each its own port." }];
  });
}
