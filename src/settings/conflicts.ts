import type { Problem } from "../errors.ts";
import { EDGE_PORTS, findEdgeConflicts } from "./edge.ts";
import { isDatabaseElsewhere, sslModeOf } from "./postgres-target.ts";
import type { Settings } from "./settings.ts";

/** Finds settings of a master that are valid alone but not together. A key without a value is not checked here. */
export function findConflicts(settings: Settings): readonly Problem[] {
  return [
    ...compareFactors(settings),
    ...compareMasterPorts(settings),
    ...compareSsl(settings),
    ...findEdgeConflicts(settings),
  ];
}

/** A CA that nothing checks would look like protection. */
function compareSsl(settings: Settings): readonly Problem[] {
  const [file, saved] = ["POSTGRES_SSL_CA", "POSTGRES_CA"];
  const subject = settings.has(file) ? file : saved;
  if (!settings.has(subject)) return [];
  if (settings.has(file) && settings.has(saved)) {
    const what = `${file} and ${saved} are both set: it is not clear which CA the database has.`;
    return [{ subject: file, what, remedy: `Remove one of the two. ${saved} came with an invite.` }];
  }
  if (sslModeOf(settings.get("POSTGRES_SSL")?.value) !== false) return [];
  const what = `${subject} is set, but POSTGRES_SSL is ${settings.get("POSTGRES_SSL")?.value ?? "not set"}: the connection would not be encrypted.`;
  return [{ subject, what, remedy: `Set POSTGRES_SSL=verify-full too, or remove ${subject}.` }];
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

/** The ports of kubo and ipfs-cluster, whatever the settings are. `0.0.0.0`: on all addresses. */
export const WRITER_PORTS = [
  { port: 4001, address: "0.0.0.0", purpose: "kubo's swarm" },
  { port: 5001, address: "127.0.0.1", purpose: "kubo's RPC" },
  { port: 8080, address: "127.0.0.1", purpose: "kubo's HTTP gateway" },
  { port: 9094, address: "127.0.0.1", purpose: "ipfs-cluster's REST API" },
  { port: 9096, address: "0.0.0.0", purpose: "ipfs-cluster's swarm" },
] as const;

/** A port that a node uses. `isFixed`: no setting of ours moves it. */
interface UsedPort {
  readonly port: string;
  readonly name: string;
  readonly isFixed: boolean;
}

const MASTER_PORTS = [
  "POSTGRES_PORT",
  "PINNING_API_PORT",
  "PINNING_EDGE_PORT",
  "WEBUI_PORT",
  "PINNING_METRICS_PORT",
  "WEBUI_METRICS_PORT",
] as const;

function compareMasterPorts(settings: Settings): readonly Problem[] {
  const isElsewhere = isDatabaseElsewhere((key) => settings.get(key)?.value);
  const edge = settings.has("PUBLIC_HOST") ? EDGE_PORTS.map((port) => fixed(port, "the edge")) : [];
  return comparePorts([
    ...edge,
    ...ofWriter(settings),
    ...named(
      settings,
      MASTER_PORTS.filter((key) => !(key === "POSTGRES_PORT" && isElsewhere)),
    ),
  ]);
}

/** A writer that was there before may use other ports than ours, so its addresses count. */
function ofWriter(settings: Settings): readonly UsedPort[] {
  return [
    ["IPFS_API_ADDR", "kubo's RPC"],
    ["IPFS_CLUSTER_API_ADDR", "ipfs-cluster's REST API"],
  ].flatMap(([key = "", purpose = ""]) => {
    const address = settings.get(key)?.value ?? "";
    const port = /^\/(?:ip4\/127\.[\d.]+|ip6\/::1|dns[46]?\/localhost)\/tcp\/(\d+)/.exec(address)?.[1];
    return port === undefined ? [] : [fixed(port, purpose)];
  });
}

/** Finds settings of a storage node that are valid alone but not together: two of its services would use one port. */
export function findStorageConflicts(settings: Settings): readonly Problem[] {
  const writer = WRITER_PORTS.map(({ port, purpose }) => fixed(port, purpose));
  return comparePorts([...writer, ...named(settings, ["INGEST_PORT", "INGEST_METRICS_PORT"])]);
}

function fixed(port: string | number, name: string): UsedPort {
  return { port: String(port), name, isFixed: true };
}

function named(settings: Settings, keys: readonly string[]): readonly UsedPort[] {
  return keys.flatMap((name) => {
    const port = settings.get(name)?.value;
    return port === undefined ? [] : [{ port, name, isFixed: false }];
  });
}

/** One problem for each setting whose port something earlier in the list has. */
function comparePorts(used: readonly UsedPort[]): readonly Problem[] {
  return used.flatMap(({ port, name, isFixed }, index) => {
    const other = used.slice(0, index).find((earlier) => earlier.port === port);
    if (isFixed || other === undefined) return [];
    const what = other.isFixed
      ? `${name} is ${port}, the port of ${other.name}.`
      : `${name} and ${other.name} are both ${port}.`;
    return [{ subject: name, what, remedy: `Give each its own port: --set ${name}=PORT.` }];
  });
}
