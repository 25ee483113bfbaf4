import type { ClusterReader } from "../cluster/client.ts";
import type { Files } from "../host/host.ts";
import {
  findForgotten,
  mergeNodes,
  parseKnownNodes,
  serialiseKnownNodes,
} from "../model/replication-nodes.ts";

/** How one storage node stands. */
export interface NodeReport {
  readonly id: string;
  readonly name: string;
  /**
   * `up`; `kubo-down`: its kubo does not answer; `no-metric`: a member without a current ping;
   * `absent`: known from before, no member now; `silent`: a member that told nothing of any pin,
   * which is what a node does that does not trust the peer that was asked.
   */
  readonly state: "up" | "kubo-down" | "no-metric" | "absent" | "silent";
  readonly lastSeen: string;
  /** Room left on its repository; null where it tells none (a full one doesn't). */
  readonly freeBytes: number | null;
}

/** Asks who is there, adds the nodes known from before, and remembers them all. */
export async function surveyNodes(options: {
  readonly cluster: ClusterReader;
  readonly files: Pick<Files, "readText" | "writeAtomic">;
  readonly path: string;
  readonly at: Date;
  readonly forget: readonly string[];
}): Promise<readonly NodeReport[]> {
  const { cluster, files, path, at, forget } = options;
  const peers = await cluster.peers();
  const pings = await cluster.metrics("ping");
  const space = await cluster.metrics("freespace");
  const before = await files.readText(path);
  const members = peers.filter((peer) => peer.error === "");
  const remembered = parseKnownNodes(before, path);
  const known = mergeNodes(remembered, members, at, findForgotten(remembered, members, forget));
  const after = serialiseKnownNodes(known);
  if (after !== before) await files.writeAtomic(path, after, { mode: 0o644 });

  const memberById = new Map(members.map((member) => [member.id, member]));
  const pinging = new Set(pings.filter((metric) => metric.valid).map((metric) => metric.peer));
  const freeById = new Map(
    space.filter((metric) => metric.valid).map((metric) => [metric.peer, Number(metric.value)]),
  );
  return known.map((node) => {
    const member = memberById.get(node.id);
    const state = ((): NodeReport["state"] => {
      if (member === undefined) return "absent";
      if (member.ipfsError !== "") return "kubo-down";
      return pinging.has(node.id) ? "up" : "no-metric";
    })();
    return {
      id: node.id,
      name: node.name,
      state,
      lastSeen: node.last_seen,
      freeBytes: freeById.get(node.id) ?? null,
    };
  });
}
