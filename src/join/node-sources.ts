import { readMasterIds } from "../database/masters.ts";
import { readOwners } from "../federation/registry.ts";
import { isPinOfDrill } from "../pinset/drill-mark.ts";
import type { NodeSources } from "../pinset/sweep/nodes.ts";
import { databaseOf, type InstalledMaster } from "./installed-node.ts";
import type { JoinDeps } from "./join-run.ts";

/**
 * Where the nodes of this master's pool are known from: its list, the other masters, and the registered names; and what the
 * masters' drills pin.
 */
export function nodeSourcesOf(
  { host }: Pick<JoinDeps, "host">,
  master: InstalledMaster,
): Pick<NodeSources, "path" | "otherMasters" | "readRegistered" | "isPinOfDrill"> {
  const { layout, values } = master;
  const pool = values("CLUSTERNAME") ?? "";
  const own = values("MASTER_ID");
  let known: Promise<readonly string[]> | null = null;
  const readIds = async (): Promise<readonly string[]> => {
    known ??= readMasterIds((sql, given) => host.postgres.query(databaseOf(master), sql, given), pool);
    return [...(own === undefined ? [] : [own]), ...(await known)];
  };
  return {
    isPinOfDrill: (pin, at) => isPinOfDrill(pin, at, readIds),
    path: layout.knownNodes,
    otherMasters: values("MASTER_CLUSTER_PEERIDS")?.split(",") ?? [],
    readRegistered: () => {
      const target = databaseOf(master);
      return readOwners((sql, parameters) => host.postgres.query(target, sql, parameters), pool);
    },
  };
}
