import type { HostReader } from "../host.ts";
import { parseJson } from "../machine/http-client.ts";
import { isOurs, NAMES } from "../settings/layout.ts";

/** Whom the ipfs-cluster of a master trusts, and where that is written. */
export interface WriterTrust {
  /** The peer ids; `*` is every peer. Null: not known. */
  readonly trusts: readonly string[] | null;
  /** `ours`: `.env` decides. `environment`: that of a container which fula-node did not create. `file`: its service.json. */
  readonly place:
    | { readonly kind: "ours" | "environment"; readonly container: string }
    | { readonly kind: "file"; readonly path: string; readonly container: string }
    | { readonly kind: "elsewhere" };
}

/** ipfs-cluster reads it at each start, and it counts more than service.json. */
export const TRUST_VARIABLE = "CLUSTER_CRDT_TRUSTEDPEERS";
const CLUSTER_DATA = "/data/ipfs-cluster";

/**
 * Reads whom this master's ipfs-cluster trusts: from the environment of its container, or else from its service.json. The
 * list is what it was started with, since ipfs-cluster reads it only then.
 */
export async function readWriterTrust({
  docker,
  files,
}: Pick<HostReader, "docker" | "files">): Promise<WriterTrust> {
  const container = await docker.container(NAMES.cluster);
  if (container === null) return { trusts: null, place: { kind: "elsewhere" } };
  const { name } = container;
  const value = container.env[TRUST_VARIABLE];
  if (value !== undefined)
    return {
      trusts: peersIn(value),
      place: { kind: isOurs(container) ? "ours" : "environment", container: name },
    };
  const data = container.mounts.find(({ destination }) => destination === CLUSTER_DATA);
  if (data === undefined) return { trusts: null, place: { kind: "elsewhere" } };
  const path = `${data.source}/service.json`;
  const text = await files.readText(path);
  return { trusts: text === null ? null : peersOfFile(text), place: { kind: "file", path, container: name } };
}

/** The peer ids of a list that is separated by commas. */
export function peersIn(value: string): readonly string[] {
  return value === "" ? [] : value.split(",");
}

/** True if a list of trusted peers has that one. */
export function doesTrust(trusts: readonly string[], peerId: string): boolean {
  return trusts.includes("*") || trusts.includes(peerId);
}

function peersOfFile(text: string): readonly string[] | null {
  const file = parseJson(text) as { consensus?: { crdt?: { trusted_peers?: unknown } | null } | null } | null;
  const peers = file?.consensus?.crdt?.trusted_peers;
  return Array.isArray(peers) ? peers.filter((peer) => typeof peer === "string") : null;
}

/** How to change the trusted peers of a writer that fula-node did not create, in sentences. */
export function describeByHand({ place, trusts }: WriterTrust, wanted: readonly string[]): readonly string[] {
  const list = wanted.join(",");
  const restart = (container: string) => `docker restart ${container}`;
  const before = trusts === null ? [] : [`It trusts now: ${trusts.join(" ") || "nobody"}.`];
  if (place.kind === "file")
    return [
      ...before,
      `In ${place.path}, set consensus.crdt.trusted_peers to ${JSON.stringify(wanted)}.`,
      `Then restart it: ${restart(place.container)}`,
    ];
  if (place.kind === "elsewhere")
    return [
      `In the service.json of your ipfs-cluster, set consensus.crdt.trusted_peers to ${JSON.stringify(wanted)}.`,
      `If its environment has ${TRUST_VARIABLE}, set that instead: ${TRUST_VARIABLE}=${list}`,
      "Then restart it. ipfs-cluster reads the list only at its start.",
    ];
  return [
    ...before,
    `In the compose file (or the docker run command) of the container ${place.container}, set ${TRUST_VARIABLE}=${list}`,
    `Then create that container again, for example: docker compose up -d. A restart alone keeps the old environment.`,
  ];
}
