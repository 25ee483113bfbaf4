import * as z from "zod";
import type { ClusterReader } from "../../cluster/client.ts";
import { OperatorError } from "../../errors.ts";
import type { Files } from "../../machine/file-writer.ts";

/** The state of one storage node. */
export interface NodeReport {
  readonly id: string;
  readonly name: string;
  /**
   * `up`; `kubo-down`: its kubo does not answer; `no-metric`: a member without a current ping;
   * `absent`: known from before, but not a member now; `silent`: a member that did not report the status of any
   * pin. A node does that if it does not trust the peer that sends the request.
   */
  readonly state: "up" | "kubo-down" | "no-metric" | "absent" | "silent";
  readonly lastSeen: string;
  /** Free space in its repository; null if it reports none. A full repository does not report. */
  readonly freeBytes: number | null;
}

/** Lists the members of the cluster, adds the nodes that are known from before, and stores all of them in the file. */
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

const nodesSchema = z.object({
  nodes: z.array(
    z.object({ id: z.string(), name: z.string(), first_seen: z.iso.datetime(), last_seen: z.iso.datetime() }),
  ),
});

/** A storage node that was a member of the cluster at some time. The cluster itself drops a dead node from its lists. */
type KnownNode = z.infer<typeof nodesSchema>["nodes"][number];

/** Reads the file of known nodes. Throws an OperatorError (integrity) if it is malformed: an empty list instead would lose the dead nodes. */
export function parseKnownNodes(text: string | null, path: string): readonly KnownNode[] {
  if (text === null) return [];
  try {
    return nodesSchema.parse(JSON.parse(text)).nodes;
  } catch (cause) {
    throw new OperatorError({
      exit: "integrity",
      what: `The list of known storage nodes in ${path} cannot be read.`,
      why: "Without the list, the sweep cannot notice that a node is gone.",
      remedy:
        "Repair the file. Or remove it while every storage node is up: the next sweep creates it again.",
      cause,
    });
  }
}

/** The text of the file, one node per line so that people can read it. */
export function serialiseKnownNodes(nodes: readonly KnownNode[]): string {
  return `{"nodes":[\n${nodes.map((node) => `  ${JSON.stringify(node)}`).join(",\n")}\n]}\n`;
}

/**
 * The ids of the nodes to forget; each is given by id or name. Throws an OperatorError (usage) if a node is
 * not known, if several nodes have the name, or if the node is still a member.
 */
export function findForgotten(
  known: readonly KnownNode[],
  members: readonly { readonly id: string }[],
  given: readonly string[],
): readonly string[] {
  return given.map((one) => {
    const [node, another] = known.filter(({ id, name }) => id === one || name === one);
    if (node === undefined || another !== undefined) {
      throw new OperatorError({
        exit: "usage",
        what:
          node === undefined
            ? `No storage node ${one} is known.`
            : `Several storage nodes have the name ${one}.`,
        remedy: `Known nodes: ${known.map(({ id, name }) => `${name} (${id})`).join(", ")}.`,
      });
    }
    if (members.some(({ id }) => id === node.id)) {
      throw new OperatorError({
        exit: "usage",
        what: `${node.name} is still a member of the cluster, so it cannot be forgotten.`,
        remedy: "Stop the node first. After half a minute it is not a member any more.",
      });
    }
    return node.id;
  });
}

/** The known nodes, updated with the current members. `forget` has the ids of nodes that were taken out of service for good. */
export function mergeNodes(
  known: readonly KnownNode[],
  members: readonly { readonly id: string; readonly peername: string }[],
  at: Date,
  forget: readonly string[],
): readonly KnownNode[] {
  const now = at.toISOString();
  const byId = new Map(known.filter((node) => !forget.includes(node.id)).map((node) => [node.id, node]));
  for (const { id, peername } of members) {
    byId.set(id, { id, name: peername, first_seen: byId.get(id)?.first_seen ?? now, last_seen: now });
  }
  return [...byId.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
}
