import type { Evidence } from "../engine/step.ts";
import type { HostReader } from "../host.ts";
import { multiaddrToUrl } from "../settings/address.ts";
import type { Values } from "../settings/context.ts";
import { countOf } from "../units.ts";

/** The answers of kubo and ipfs-cluster at the addresses in the settings. */
export interface WriterAnswer {
  readonly kubo: boolean;
  readonly cluster: boolean;
  /** Null if both answer and the cluster peer reaches its kubo. */
  readonly fault: string | null;
  readonly evidence: Evidence;
}

const TIMEOUT_MS = 5000;
const COUNT_TIMEOUT_MS = 2000;

/** Sends a request to both REST APIs. One without a usable address counts as not answering. */
export async function askWriter(host: HostReader, values: Values): Promise<WriterAnswer> {
  const [kuboAddress, clusterAddress] = [
    values("IPFS_API_ADDR") ?? "",
    values("IPFS_CLUSTER_API_ADDR") ?? "",
  ];
  const basicAuth = values("CLUSTER_BASIC_AUTH");
  const [kuboUrl, clusterUrl] = [multiaddrToUrl(kuboAddress), multiaddrToUrl(clusterAddress)];
  const [kubo, cluster] = await Promise.all([
    kuboUrl === null
      ? null
      : host.http.json(`${kuboUrl}/api/v0/id`, { method: "POST", timeoutMs: TIMEOUT_MS }),
    clusterUrl === null
      ? null
      : host.http.json(`${clusterUrl}/id`, {
          timeoutMs: TIMEOUT_MS,
          ...(basicAuth === undefined ? {} : { basicAuth }),
        }),
  ]);
  const kuboId = textAt(kubo?.body, "ID");
  const clusterId = textAt(cluster?.body, "id");
  const ipfsError = textAt(at(cluster?.body, "ipfs"), "error");
  const evidence: Evidence = {
    kubo:
      kuboId === null
        ? `no answer at ${kuboAddress}`
        : `${kuboId}, ${textAt(kubo?.body, "AgentVersion") ?? "unknown version"}`,
    "ipfs-cluster":
      clusterId === null
        ? `no answer at ${clusterAddress}`
        : `${clusterId}, ${textAt(cluster?.body, "version") ?? "unknown version"}`,
  };
  const fault = faultOf({ kubo, cluster, kuboId, clusterId, ipfsError, kuboAddress, clusterAddress });
  return { kubo: kuboId !== null, cluster: clusterId !== null, fault, evidence };
}

/** The ipfs-cluster of the settings: its peer id and its own addresses; null if it does not answer. */
export async function readWriterPeer(
  host: HostReader,
  values: Values,
): Promise<{ readonly id: string; readonly addresses: readonly string[] } | null> {
  const url = multiaddrToUrl(values("IPFS_CLUSTER_API_ADDR") ?? "");
  const basicAuth = values("CLUSTER_BASIC_AUTH");
  const options = { timeoutMs: TIMEOUT_MS, ...(basicAuth === undefined ? {} : { basicAuth }) };
  const answer = url === null ? null : await host.http.json(`${url}/id`, options);
  const id = textAt(answer?.body, "id");
  const addresses = at(answer?.body, "addresses");
  return id === null
    ? null
    : {
        id,
        addresses: Array.isArray(addresses) ? addresses.filter((one) => typeof one === "string") : [],
      };
}

/** The number of pins that the cluster lists, counted for two seconds at most. */
export async function describePins(host: HostReader, values: Values): Promise<string> {
  const basicAuth = values("CLUSTER_BASIC_AUTH");
  const url = `${multiaddrToUrl(values("IPFS_CLUSTER_API_ADDR") ?? "") ?? ""}/allocations?filter=all`;
  const count = await host.http.countLines(url, {
    timeoutMs: COUNT_TIMEOUT_MS,
    ...(basicAuth === undefined ? {} : { basicAuth }),
  });
  if (count === null) return "unknown: the cluster does not answer the listing";
  return count.complete ? countOf(count.lines, "pin") : `more than ${count.lines} pins`;
}

/** Where the images of kubo and ipfs-cluster have their data, and which files there hold keys and secrets. */
const SECRET_FILES: Readonly<Record<string, readonly string[]>> = {
  "/data/ipfs": ["config", "config.fula-node"],
  "/data/ipfs-cluster": ["identity.json", "service.json"],
};

/** The files with private keys and secrets of a writer's containers, on this machine. */
export async function secretFilesOf(
  host: HostReader,
  containers: readonly {
    readonly mounts: readonly { readonly source: string; readonly destination: string }[];
  }[],
): Promise<readonly string[]> {
  const paths = containers.flatMap(({ mounts }) =>
    mounts.flatMap(({ source, destination }) =>
      (SECRET_FILES[destination] ?? []).map((name) => `${source}/${name}`),
    ),
  );
  const real = await Promise.all(paths.map((path) => host.files.realPath(path)));
  return real.filter((path) => path !== null);
}

function faultOf(seen: {
  readonly kubo: { readonly status: number } | null;
  readonly cluster: { readonly status: number } | null;
  readonly kuboId: string | null;
  readonly clusterId: string | null;
  readonly ipfsError: string | null;
  readonly kuboAddress: string;
  readonly clusterAddress: string;
}): string | null {
  if (seen.cluster?.status === 401)
    return `ipfs-cluster at ${seen.clusterAddress} requires a password (set CLUSTER_BASIC_AUTH)`;
  if (seen.clusterId === null)
    return `ipfs-cluster does not answer at ${seen.clusterAddress}${seen.cluster === null ? "" : ` (something else answered, status ${seen.cluster.status})`}`;
  if (seen.kuboId === null)
    return `kubo does not answer at ${seen.kuboAddress}${seen.kubo === null ? "" : ` (something else answered, status ${seen.kubo.status})`}`;
  return seen.ipfsError === null || seen.ipfsError === ""
    ? null
    : `the cluster peer cannot reach its kubo: ${seen.ipfsError}`;
}

function at(value: unknown, key: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[key] : undefined;
}

function textAt(value: unknown, key: string): string | null {
  const found = at(value, key);
  return typeof found === "string" ? found : null;
}
