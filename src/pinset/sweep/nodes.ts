import type { ClusterReader } from "../../cluster/client.ts";
import type { WholePin } from "../../cluster/pin.ts";
import { messageOf, OperatorError } from "../../errors.ts";
import type { Files } from "../../machine/file-writer.ts";
import {
  type ExpectedBy,
  expectedBy,
  forgetNodes,
  type KnownNode,
  type KnownNodes,
  type Masters,
  parseKnownNodes,
  serialiseKnownNodes,
  type Stranger,
  syncOf,
  updateNodes,
} from "./known-nodes.ts";

/** One expected node. */
export interface NodeReport {
  readonly id: string;
  readonly name: string;
  readonly expectedBy: ExpectedBy;
  /**
   * `up`; `kubo-down`: its kubo does not answer; `no-metric`: a member without a current ping;
   * `absent`: not a member now; `silent`: a member that did not report the status of any pin. A node does that
   * if it does not trust the peer that sends the request.
   */
  readonly state: "up" | "kubo-down" | "no-metric" | "absent" | "silent";
  /** `syncing`: it is new, and fetches the pinset; `stalled`: it is new, and had no more pins for six hours. */
  readonly sync: "synced" | "syncing" | "stalled";
  /** How many pins it has, of those that it should have, at the last sweep. */
  readonly pinsDone: number;
  readonly pinsDue: number;
  /** When a sweep last saw it as a member, or now; null if none did. */
  readonly lastSeen: string | null;
  /** When it last announced its registered name to a master of this database; null if that is not known. */
  readonly announcedAt: string | null;
  /** Free space in its repository; null if it reports none. A full repository does not report. */
  readonly freeBytes: number | null;
}

/** A node with a registered name. */
interface RegisteredNode {
  readonly id: string;
  readonly name: string;
  /** When it last announced a name, as ISO text. */
  readonly announcedAt?: string | null;
}

/** Where the nodes of the pool are known from. */
export interface NodeSources {
  readonly cluster: ClusterReader;
  readonly files: Pick<Files, "readText" | "writeAtomic">;
  /** The file with all known nodes: `<base>/known-nodes.json`. */
  readonly path: string;
  /** MASTER_CLUSTER_PEERIDS: the other masters of the pool. */
  readonly otherMasters: readonly string[];
  /** The nodes with a registered name. Throws an OperatorError if the database does not answer. */
  readonly readRegistered: () => Promise<readonly RegisteredNode[]>;
  /** True for the pin of a drill of a master of the pool. Without it, such a pin counts as any other. */
  readonly isPinOfDrill?: ((pin: WholePin, at: Date) => Promise<boolean>) | undefined;
}

/** The nodes of the pool now. */
export interface NodeSurvey {
  readonly known: KnownNodes;
  readonly masters: Masters;
  readonly members: readonly { readonly id: string; readonly peername: string }[];
  /** The expected nodes. */
  readonly nodes: readonly NodeReport[];
  /** Members that are not expected, and were so. */
  readonly strangers: readonly Stranger[];
  /** Those of them that are seen for the first time. */
  readonly newStrangers: readonly Stranger[];
  /** Nodes that were expected until now: their names are not registered any more. */
  readonly dropped: readonly KnownNode[];
  /** Why the registered names could not be read, so that the last known ones are used; null if they could. */
  readonly namesFault: string | null;
}

/**
 * Lists the members of the cluster and the nodes that are expected, and stores them in the file if `save` is set.
 * Throws an OperatorError (unavailable) if the registered names can't be read and none were known before: an
 * incomplete answer is not an empty one.
 */
export async function surveyNodes(
  sources: NodeSources,
  options: { readonly at: Date; readonly forget?: readonly string[]; readonly save: boolean },
): Promise<NodeSurvey> {
  const { cluster, files, path } = sources;
  const { at, forget = [], save } = options;
  const { id: own } = await cluster.identity();
  const masters: Masters = [own, ...sources.otherMasters.filter((id) => id !== own)];
  const peers = await cluster.peers();
  const pings = await cluster.metrics("ping");
  const space = await cluster.metrics("freespace");
  const text = await files.readText(path);
  const before = parseKnownNodes(text, path);
  const names = await readNames(sources, text !== null);
  const members = peers.filter((peer) => peer.error === "");
  const updated = updateNodes(before, { masters, registered: names.registered, members, at });
  const known = forget.length === 0 ? updated : forgetNodes(updated, forget, { masters, members });
  const after = serialiseKnownNodes(known);
  if (save && after !== text) await files.writeAtomic(path, after, { mode: 0o644 });

  const memberById = new Map(members.map((member) => [member.id, member]));
  const pinging = new Set(pings.filter((metric) => metric.valid).map((metric) => metric.peer));
  const freeById = new Map(
    space.filter((metric) => metric.valid).map((metric) => [metric.peer, Number(metric.value)]),
  );
  const stateOf = ({ id }: KnownNode): NodeReport["state"] => {
    const member = memberById.get(id);
    if (member === undefined) return "absent";
    if (member.ipfsError !== "") return "kubo-down";
    return pinging.has(id) ? "up" : "no-metric";
  };
  const announcedById = new Map(names.registered?.map(({ id, announcedAt = null }) => [id, announcedAt]));
  const strangersBefore = new Set([...before.strangers, ...before.nodes].map(({ id }) => id));
  return {
    known,
    masters,
    members,
    nodes: known.nodes.map((node) => ({
      ...reportOf(node, masters, at),
      state: stateOf(node),
      freeBytes: freeById.get(node.id) ?? null,
      announcedAt: announcedById.get(node.id) ?? null,
    })),
    strangers: known.strangers,
    newStrangers: known.strangers.filter(({ id }) => !strangersBefore.has(id)),
    dropped: before.nodes.filter(({ id }) => !updated.nodes.some((node) => node.id === id)),
    namesFault: names.fault,
  };
}

/** What the file knows of an expected node. */
export function reportOf(
  node: KnownNode,
  masters: readonly string[],
  at: Date,
): Omit<NodeReport, "state" | "freeBytes" | "announcedAt"> {
  return {
    id: node.id,
    name: node.name,
    expectedBy: expectedBy(node, masters),
    sync: syncOf(node, at),
    pinsDone: node.pins_done,
    pinsDue: node.pins_due,
    lastSeen: node.last_seen,
  };
}

async function readNames(
  { readRegistered, path }: NodeSources,
  isFileThere: boolean,
): Promise<{
  readonly registered: readonly RegisteredNode[] | null;
  readonly fault: string | null;
}> {
  try {
    return { registered: await readRegistered(), fault: null };
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    if (isFileThere) return { registered: null, fault: messageOf(thrown) };
    throw new OperatorError({
      exit: "unavailable",
      what: `The registered names of storage nodes cannot be read: ${messageOf(thrown)}`,
      why: `Without them the sweep does not know which nodes to expect, and ${path} has none from an earlier sweep.`,
      remedy: "Make the database answer, then run this again.",
      cause: thrown,
    });
  }
}
