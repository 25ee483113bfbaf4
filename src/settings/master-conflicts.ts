import type { Problem } from "../errors.ts";
import type { Settings } from "./settings.ts";

/** Settings of a master that are each right, but not together. A key without a value is left to others. */
export function findConflicts(settings: Settings): readonly Problem[] {
  return [...compareFactors(settings), ...comparePorts(settings)];
}

/** The rules by which ipfs-cluster 1.1 starts at all (its cluster_config.go, isReplicationFactorValid). */
function compareFactors(settings: Settings): readonly Problem[] {
  const least = settings.get("CLUSTER_REPLICATION_MIN");
  const most = settings.get("CLUSTER_REPLICATION_MAX");
  if (least === undefined || most === undefined) return [];
  const subject = "CLUSTER_REPLICATION_MIN";
  const remedy = "Give both, the minimum not above the maximum; or -1 for both: a copy on every node.";
  if ((least.value === "-1") !== (most.value === "-1")) {
    const what = `${subject} is ${least.value} and CLUSTER_REPLICATION_MAX is ${most.value}: -1 goes for both or for none.`;
    return [{ subject, what, remedy }];
  }
  if (Number(least.value) <= Number(most.value)) return [];
  const what = `${subject} (${least.value}) is above CLUSTER_REPLICATION_MAX (${most.value}).`;
  return [{ subject, what, remedy }];
}

const PORTS = ["POSTGRES_PORT", "PINNING_API_PORT", "WEBUI_PORT"] as const;
const HERE: readonly (string | undefined)[] = ["127.0.0.1", "localhost", "::1", undefined];

function comparePorts(settings: Settings): readonly Problem[] {
  const isElsewhere = !HERE.includes(settings.get("POSTGRES_HOST")?.value);
  const keys = PORTS.filter((key) => !(key === "POSTGRES_PORT" && isElsewhere));
  return keys.flatMap((key, index) => {
    const port = settings.get(key)?.value;
    const other = keys.slice(0, index).find((earlier) => settings.get(earlier)?.value === port);
    if (port === undefined || other === undefined) return [];
    const what = `${key} and ${other} are both ${port}.`;
    return [{ subject: key, what, remedy: "Give each a port of its own." }];
  });
}
