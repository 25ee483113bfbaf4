import * as z from "zod";
import { OperatorError } from "../errors.ts";

const nodesSchema = z.object({
  nodes: z.array(
    z.object({ id: z.string(), name: z.string(), first_seen: z.iso.datetime(), last_seen: z.iso.datetime() }),
  ),
});

/** A storage node that was once a member of the cluster. A dead one vanishes from the cluster's own lists. */
export type KnownNode = z.infer<typeof nodesSchema>["nodes"][number];

/** Reads the file of known nodes. Throws an OperatorError (integrity): starting afresh would forget dead nodes. */
export function parseKnownNodes(text: string | null, path: string): readonly KnownNode[] {
  if (text === null) return [];
  try {
    return nodesSchema.parse(JSON.parse(text)).nodes;
  } catch (cause) {
    throw new OperatorError({
      exit: "integrity",
      what: `The list of known storage nodes in ${path} can't be read.`,
      why: "Without it a node that is gone would not be missed.",
      remedy: "Mend the file, or remove it while every storage node is up: the next sweep writes it anew.",
      cause,
    });
  }
}

/** The file's text, one node a line for people. */
export function serialiseKnownNodes(nodes: readonly KnownNode[]): string {
  return `{"nodes":[\n${nodes.map((node) => `  ${JSON.stringify(node)}`).join(",\n")}\n]}\n`;
}

/**
 * The ids of nodes that are to be forgotten, each given by id or name. Throws an OperatorError (usage)
 * for one that is not known, that several have as their name, or that is a member still.
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
            : `Several storage nodes are called ${one}.`,
        remedy: `Known are: ${known.map(({ id, name }) => `${name} (${id})`).join(", ")}.`,
      });
    }
    if (members.some(({ id }) => id === node.id)) {
      throw new OperatorError({
        exit: "usage",
        what: `${node.name} is a member of the cluster, so it can't be forgotten.`,
        remedy: "Stop it first; half a minute later the cluster no longer counts it.",
      });
    }
    return node.id;
  });
}

/** The known nodes after members were seen; `forget` names those that were taken out of service and are gone. */
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
