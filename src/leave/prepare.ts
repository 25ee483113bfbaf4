import type { AnyStep } from "../engine/step.ts";
import { isDatabaseElsewhere, postgresTarget } from "../settings/master.ts";
import type { World } from "../world.ts";
import type { NameToRelease } from "./name.ts";
import type { FoundNode } from "./node.ts";
import type { Part } from "./policy.ts";
import { leaveSteps, type Leaving } from "./steps.ts";

/** The steps by which a node leaves. */
export function prepareLeave(
  world: World,
  found: FoundNode,
  { purged, release }: { readonly purged: ReadonlySet<Part>; readonly release: boolean },
): readonly AnyStep[] {
  const { node } = found;
  const isMaster = node.kind === "master";
  return leaveSteps({
    node,
    purged,
    name: isMaster || !release ? null : nameToRelease(world, found),
    flags: isMaster ? flagsElsewhere(found) : null,
  });
}

/** Null where `.env` does not tell them: then nothing was ever announced, or nobody knows where. */
function nameToRelease(world: World, { values }: FoundNode): NameToRelease | null {
  const [pool, name, url] = [values("CLUSTERNAME"), values("CLUSTER_PEERNAME"), values("STORAGE_API_URL")];
  if (pool === undefined || name === undefined || url === undefined) return null;
  return { pool, name, client: world.openNodesClient(url) };
}

function flagsElsewhere({ values }: FoundNode): Leaving["flags"] {
  const target = isDatabaseElsewhere(values) ? postgresTarget(values) : null;
  const master = values("CLUSTER_PEERNAME");
  return target === null || master === undefined ? null : { target, master };
}
