import type { Change, Finding, StepSpec } from "../../engine/step.ts";
import { OperatorError } from "../../errors.ts";
import { readNodeIdentity } from "../../federation/node-identity.ts";
import { readValues } from "../../settings/context.ts";
import type { StorageContext } from "../../federation/storage-context.ts";

/** Reports the trusted masters as evidence. The step env-file saves them, so this step never changes anything. */
export function pool(context: StorageContext): StepSpec<null, Change> {
  return {
    id: "pool",
    title: "the pool and its masters",
    touches:
      "Changes nothing. Shows the trusted masters, and stops if this node is listed as its own master.",

    async probe(host): Promise<Finding<null>> {
      const [values, identity] = await Promise.all([readValues(host, context), readNodeIdentity(host)]);
      const trusted = values("MASTER_CLUSTER_PEERIDS") ?? "";
      const evidence = {
        pool: values("CLUSTERNAME") ?? "unknown",
        "trusted masters": trusted,
        "found at": values("MASTER_CLUSTER_BOOTSTRAP") ?? "unknown",
        "storage API": values("STORAGE_API_URL") ?? "unknown",
        "own cluster peer": identity?.peerId ?? "not created yet",
      };
      if (identity === null || !trusted.split(",").includes(identity.peerId))
        return { state: "ours", seen: null, evidence };
      return {
        state: "foreign",
        evidence,
        why: `MASTER_CLUSTER_PEERIDS lists this node itself (${identity.peerId}). It would trust itself and could change its own pinset.`,
        remedy: `Remove it from MASTER_CLUSTER_PEERIDS in ${context.layout.envFile}, or pass the masters' ids with --set.`,
      };
    },

    plan: () => [],
    apply: () => Promise.resolve(),

    async verify(host) {
      const values = await readValues(host, context);
      if (values("MASTER_CLUSTER_PEERIDS") !== undefined) return;
      throw new OperatorError({
        exit: "unhealthy",
        what: `${context.layout.envFile} does not list any master.`,
        remedy: "Run again.",
      });
    },
  };
}
