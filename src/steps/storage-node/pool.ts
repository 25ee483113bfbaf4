import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import { readNodeIdentity } from "../../federation/node-identity.ts";
import type { StorageContext } from "../../federation/membership.ts";
import { readValues } from "../../settings/context.ts";

/** Whom the node obeys: told as evidence. It is written down by env-file, so there is nothing to plan. */
export function pool(context: StorageContext): StepSpec<null, Change> {
  return {
    id: "pool",
    title: "the pool and its masters",
    touches: "Nothing: it tells whom this node obeys, and halts where that is the node itself.",

    async probe(host): Promise<Finding<null>> {
      const [values, identity] = await Promise.all([readValues(host, context), readNodeIdentity(host)]);
      const trusted = values("MASTER_CLUSTER_PEERIDS") ?? "";
      const evidence = {
        pool: values("CLUSTERNAME") ?? "unknown",
        "masters to obey": trusted,
        "found at": values("MASTER_CLUSTER_BOOTSTRAP") ?? "unknown",
        "storage API": values("STORAGE_API_URL") ?? "unknown",
        "own cluster peer": identity?.peerId ?? "not made yet",
      };
      if (identity === null || !trusted.split(",").includes(identity.peerId))
        return { state: "ours", seen: null, evidence };
      return {
        state: "foreign",
        evidence,
        why: `MASTER_CLUSTER_PEERIDS names this node itself (${identity.peerId}): it would obey itself, and could change its own pinset.`,
        remedy: `Take it out of MASTER_CLUSTER_PEERIDS in ${context.layout.envFile}, or give the masters' ids by --set.`,
      };
    },

    plan: () => [],
    apply: () => Promise.resolve(),

    async verify(host) {
      const values = await readValues(host, context);
      if (values("MASTER_CLUSTER_PEERIDS") !== undefined) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${context.layout.envFile} names no master.`,
        remedy: "Run again.",
      });
    },
  };
}
