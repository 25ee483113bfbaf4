import * as z from "zod";
import { age, countOf, grouped, utcSeconds } from "../../units.ts";
import type { Alarm } from "../alerts.ts";
import type { Heartbeat } from "../heartbeat.ts";
import type { SweepPoint } from "../history.ts";
import type { NodeReport, NodeSurvey } from "./nodes.ts";
import { alertLine, type SweepTally } from "./replication.ts";

/** What one sweep found. */
export interface SweepFindings {
  readonly at: Date;
  readonly tally: SweepTally;
  readonly nodes: readonly NodeReport[];
  /** How many members are not expected. */
  readonly strangers: number;
  /** How many of them may be nodes of the pool. */
  readonly undecided?: number;
  readonly namesFault: string | null;
  /** Why the queue of the pinning API is not known, or not all of it. */
  readonly queueFault: string | null;
  /** The peer id of this master. */
  readonly own: string;
}

const SEARCHED_FOR = "still searched for by the pinning API";
const MAX_WORST = 20;
const MAX_NAMED = 5;
/** So many nodes are named on the status screen, those with a problem first. */
const MAX_SHOWN = 12;
/** More nodes are only counted, so that the heartbeat stays small. */
const MAX_NODES = 100;

/** The alarm for what a sweep found, or null. There is one alarm, however many pins and nodes it is about. */
export function sweepAlarm(found: SweepFindings): Alarm | null {
  const { at, tally, nodes } = found;
  const utc = utcSeconds(at);
  const stalled = nodes.filter(({ sync }) => sync === "stalled");
  if (tally.below() === 0 && stalled.length === 0) return null;
  const pins = tally.candidates();
  const lines = pins.map((pin) => alertLine(at, pin.cid, pin));
  const more = tally.alarming() - pins.length;
  if (more > 0) lines.push(`${utc} under-replicated-more pins=${more}`);
  if (tally.lackingNodes > 0)
    lines.push(`${utc} too-few-nodes nodes=${nodes.length} pins=${tally.lackingNodes}`);
  for (const { id, name, pinsDone, pinsDue } of stalled)
    lines.push(`${utc} node-stalled node=${name} id=${id} pins=${pinsDone}/${pinsDue}`);
  return {
    kind: tally.below() > 0 ? "under-replicated" : "node-stalled",
    at,
    summary: summarise(found),
    counts: {
      pins: tally.pins,
      below: tally.below(),
      ...tally.counts,
      "lacking-nodes": tally.lackingNodes,
      "nodes-expected": nodes.length,
      "nodes-not-up": nodes.filter(({ state }) => state !== "up").length,
      "nodes-stalled": stalled.length,
    },
    worst:
      pins.length > 0
        ? tally.worst(MAX_WORST).map((pin) => ({ ...pin }))
        : stalled.map(({ id, name, pinsDone, pinsDue }) => ({ node: name, id, pinsDone, pinsDue })),
    lines,
  };
}

/** The summary of a sweep for people, and plain data of bounded size for `status`. */
export function sweepFacts(found: SweepFindings): {
  readonly summary: string;
  readonly facts: Readonly<Record<string, unknown>>;
} {
  const { tally, nodes, strangers, namesFault, queueFault, own } = found;
  const { healthy, syncing, unknown } = tally.counts;
  const facts = {
    pins: {
      total: tally.pins,
      complete: healthy,
      syncing: syncing + tally.counts["in-progress"],
      searchedFor: tally.counts["searched-for"],
      below: tally.below(),
      unknown,
      lackingNodes: tally.lackingNodes,
    },
    histogram: tally.histogram(),
    own,
    nodes: nodes.slice(0, MAX_NODES).map((node) => ({ ...node })),
    nodesExpected: nodes.length,
    strangers,
    namesFault,
    queueFault,
  };
  return { summary: summarise(found), facts };
}

/** What the history keeps of a sweep. */
export function sweepPoint({ at, tally, nodes }: SweepFindings): SweepPoint {
  const free = nodes.flatMap(({ freeBytes }) => freeBytes ?? []);
  return {
    at: at.toISOString(),
    pins: tally.pins,
    complete: tally.counts.healthy,
    below: tally.below(),
    freeBytes: free.length === 0 ? null : free.reduce((sum, bytes) => sum + bytes, 0),
  };
}

function summarise(found: SweepFindings): string {
  const { tally, nodes, undecided = 0, namesFault, queueFault } = found;
  const strangers = found.strangers - undecided;

  const { counts } = tally;
  const parts = [countOf(tally.pins, "pin"), `${counts.healthy} healthy`];
  for (const state of ["in-progress", "syncing", "failed", "unknown", "under-replicated"] as const) {
    if (counts[state] > 0) parts.push(`${counts[state]} ${state}`);
  }
  if (counts["searched-for"] > 0) parts.push(`${counts["searched-for"]} ${SEARCHED_FOR}`);
  if (tally.drills > 0) parts.push(`${countOf(tally.drills, "pin")} of a drill set apart`);
  if (tally.lackingNodes > 0)
    parts.push(`${countOf(nodes.length, "expected node")}, which is fewer than the copies that pins need`);
  const described = nodes.filter(({ state, sync }) => state !== "up" || sync !== "synced").map(describeNode);
  const more = described.length - MAX_NAMED;
  const named = [...described.slice(0, MAX_NAMED), ...(more > 0 ? [`${more} more`] : [])];
  if (described.length > 0) parts.push(`nodes: ${named.join(", ")}`);
  if (strangers > 0) parts.push(`${countOf(strangers, "node")} not expected`);
  if (undecided > 0)
    parts.push(`${countOf(undecided, "new node")} not known, because the database can't be reached`);
  if (namesFault !== null) parts.push("the last known names are used, because the database did not answer");
  if (queueFault !== null)
    parts.push(
      "pins that the pinning API still searches for count as all others, because its queue is not fully known",
    );
  return parts.join("; ");
}

function describeNode({ name, id, state, sync, pinsDone, pinsDue }: NodeReport): string {
  const progress = sync === "synced" ? "" : ` ${describeSync({ sync, pinsDone, pinsDue })}`;
  return `${name === "" ? id : name}${state === "up" ? "" : ` ${state}`}${progress}`;
}

/** The health of the pins or nodes, for the status screen. */
export interface FindingsHealth {
  readonly state: "ok" | "attention" | "unknown";
  readonly sentence: string;
  readonly todo: string | null;
}

/** `problem`: only the nodes that need attention, in the same words; null if none does. */
export type NodesHealth = FindingsHealth & { readonly problem: string | null };

const factsSchema = z.object({
  pins: z.object({
    total: z.number(),
    complete: z.number(),
    syncing: z.number(),
    /** Earlier versions did not write it. */
    searchedFor: z.number().default(0),
    /** Also those of which it is not known if they have enough copies. */
    below: z.number(),
    /** Earlier versions did not write it. */
    unknown: z.number().default(0),
    lackingNodes: z.number(),
  }),
  /** Number of copies -> number of pins. Earlier versions did not write it. */
  histogram: z.record(z.string(), z.number()).default({}),
  /** The peer id of this master. Earlier versions did not write it. */
  own: z.string().nullable().default(null),
  nodes: z.array(
    z.object({
      id: z.string(),
      name: z.string(),
      state: z.string(),
      sync: z.string(),
      pinsDone: z.number(),
      pinsDue: z.number(),
      lastSeen: z.string().nullable(),
      /** Earlier versions did not write it. */
      announcedAt: z.string().nullable().default(null),
      freeBytes: z.number().nullable().default(null),
      expectedBy: z.string().default("registered"),
    }),
  ),
  nodesExpected: z.number(),
  strangers: z.number(),
  namesFault: z.string().nullable(),
  /** Earlier versions did not write it. */
  queueFault: z.string().nullable().default(null),
});

const NOT_KNOWN: NodesHealth = {
  problem: null,
  state: "unknown",
  sentence: "no sweep has reported them yet",
  todo: "run it and read what it prints: fula-node sweep",
};

/** The nodes as they are now, with their registered names. */
export type NodesNow = Pick<NodeSurvey, "masters" | "nodes" | "strangers">;

/**
 * What `status` shows of the pins and the nodes: what the last complete sweep found, from its heartbeat, and when that was.
 * Whether that is too long ago must be judged by assessHeartbeat. `forgotten`: nodes that are not shown any more. `live`:
 * the nodes are shown as they are now: a sweep knows nothing of those that came, went or registered after it.
 */
export function assessFindings(
  heartbeat: Pick<Heartbeat, "facts" | "facts_at"> | null,
  now: Date,
  {
    forgotten = new Set(),
    live = null,
  }: { readonly forgotten?: ReadonlySet<string>; readonly live?: NodesNow | null } = {},
): { readonly pins: FindingsHealth; readonly nodes: NodesHealth } {
  const read = factsSchema.safeParse(heartbeat?.facts);
  const seen = live === null ? null : assessNodes(withLive(read.data?.nodes ?? [], live), { now, when: "" });
  if (!read.success) return { pins: NOT_KNOWN, nodes: seen ?? NOT_KNOWN };
  const { data } = read;
  const foundMs = heartbeat?.facts_at == null ? Number.NaN : now.getTime() - Date.parse(heartbeat.facts_at);
  const when = foundMs >= 0 ? `; found ${age(foundMs)} ago` : "";
  const nodes = data.nodes.filter(({ id }) => !forgotten.has(id));
  const nodesExpected = data.nodesExpected - (data.nodes.length - nodes.length);
  return {
    pins: assessPins({ ...data, nodesExpected }, when),
    nodes: seen ?? assessNodes({ ...data, nodes, nodesExpected }, { now, when }),
  };
}

/** What the last complete sweep found, as its heartbeat has it. */
export type Facts = z.infer<typeof factsSchema>;

/** Reads it. Null if no sweep was complete yet, or the record is damaged. */
export function readFacts(heartbeat: Pick<Heartbeat, "facts"> | null): Facts | null {
  return factsSchema.safeParse(heartbeat?.facts).data ?? null;
}

type NodeFacts = Facts["nodes"][number];
type AllNodes = Pick<Facts, "nodes" | "nodesExpected" | "own" | "strangers" | "namesFault">;

/** Only a sweep finds out that a member is silent. A member without a ping is one that just came, or is about to go. */
function withLive(swept: readonly NodeFacts[], { masters, nodes, strangers }: NodesNow): AllNodes {
  const silent = new Set(swept.filter(({ state }) => state === "silent").map(({ id }) => id));
  const isOwn = ({ id }: NodeReport) => id === masters[0];
  const sorted = nodes.toSorted((a, b) => Number(isOwn(b)) - Number(isOwn(a)) || (a.name < b.name ? -1 : 1));
  const shown = sorted.map((node) => {
    const isMember = node.state === "up" || node.state === "no-metric";
    return isMember ? { ...node, state: silent.has(node.id) ? "silent" : "up" } : node;
  });
  return {
    nodes: shown,
    nodesExpected: shown.length,
    own: masters[0],
    strangers: strangers.length,
    namesFault: null,
  };
}

function assessPins({ pins, nodesExpected, queueFault }: Facts, when: string): FindingsHealth {
  const lacking = pins.below - pins.unknown;
  const parts = [
    `${grouped(pins.complete)} complete`,
    ...(pins.syncing > 0 ? [`${grouped(pins.syncing)} syncing`] : []),
    ...(pins.searchedFor > 0 ? [`${grouped(pins.searchedFor)} ${SEARCHED_FOR}`] : []),
    ...(lacking > 0 ? [`${grouped(lacking)} below their minimum`] : []),
    ...(pins.unknown > 0 ? [`${grouped(pins.unknown)} unknown`] : []),
    ...(queueFault === null ? [] : ["the queue of the pinning API was not fully known then"]),
  ];
  const todo =
    pins.lackingNodes > 0
      ? `add storage nodes, or lower REPL_MIN: the pool has ${countOf(nodesExpected, "node")}`
      : "see the pins and their nodes: fula-node sweep --json";
  return {
    state: pins.below > 0 ? "attention" : "ok",
    sentence: `${grouped(pins.total)}: ${parts.join(", ")}${when}`,
    todo: pins.below > 0 ? todo : null,
  };
}

function assessNodes(
  { nodes, nodesExpected, own, strangers, namesFault }: AllNodes,
  { now, when }: { readonly now: Date; readonly when: string },
): NodesHealth {
  const isWrongNode = ({ state, sync }: (typeof nodes)[number]) => state !== "up" || sync === "stalled";
  const wrong = nodes.filter(isWrongNode);
  const shown = nodes.length <= MAX_SHOWN ? nodes : [...wrong, ...nodes.filter((node) => !isWrongNode(node))];
  const nameOf = ({ name, id }: NodeFacts): string => (name === "" ? id : name);
  const describe = (node: NodeFacts): string => {
    const remarks = [...(node.id === own ? ["here"] : []), ...remarksOf(node, now)].join(", ");
    return remarks === "" ? nameOf(node) : `${nameOf(node)} (${remarks})`;
  };
  const names = shown.slice(0, MAX_SHOWN).map(describe);
  if (nodesExpected > MAX_SHOWN) names.push(`${nodesExpected - MAX_SHOWN} more`);
  if (strangers > 0) names.push(`${strangers} not expected`);
  if (namesFault !== null) names.push("the database did not answer then, so the last known names were used");
  const sentence = `${names.join(", ")}${when}`;
  const [first, ...others] = wrong;
  if (first !== undefined) {
    const more = wrong.length - MAX_SHOWN;
    const problem = [...wrong.slice(0, MAX_SHOWN).map(describe), ...(more > 0 ? [`${more} more`] : [])].join(
      ", ",
    );
    const removal = (node: NodeFacts, name: string): string =>
      `fula-node ${node.expectedBy === "master" ? "trust remove" : "node forget"} ${name}`;
    const kinds = new Set(
      wrong.map((node) => removal(node, node.expectedBy === "master" ? "MASTER" : "NODE")),
    );
    const todo =
      others.length === 0
        ? `start ${nameOf(first)}, or remove it for good: ${removal(first, nameOf(first))}`
        : `start them, or remove one for good: ${[...kinds].join(", ")}`;
    return { state: "attention", sentence, problem: `${problem}${when}`, todo };
  }
  return namesFault === null
    ? { state: "ok", sentence, problem: null, todo: null }
    : { state: "attention", sentence, problem: null, todo: "look again: fula-node sweep" };
}

function remarksOf(node: NodeFacts, now: Date): readonly string[] {
  const { state, sync, pinsDone, pinsDue } = node;
  const parts: string[] = [];
  if (state === "absent") parts.push(`away, ${describeLastSign(node, now, "at the sweep")}`);
  else if (state !== "up") parts.push(state);
  if (sync !== "synced") parts.push(describeSync({ sync, pinsDone, pinsDue }));
  return parts;
}

/** `syncing, 3 of 5 pins`. A node that no sweep has seen is new: nobody has looked at its pins. */
export function describeSync({
  sync,
  pinsDone,
  pinsDue,
}: Pick<NodeReport, "pinsDone" | "pinsDue"> & { readonly sync: string }): string {
  return sync === "syncing" && pinsDue === 0
    ? "new, not looked at yet"
    : `${sync}, ${grouped(pinsDone)} of ${grouped(pinsDue)} pins`;
}

/**
 * The last sign of life of a node: `last seen 20 s ago`, or `announced itself 4 min ago` if that was later. A sweep comes
 * every half an hour: a node may have come and gone without one.
 */
export function describeLastSign(
  { lastSeen, announcedAt }: Pick<NodeReport, "lastSeen" | "announcedAt">,
  now: Date,
  seen: string,
): string {
  const ago = (date: string) => `${age(Math.max(0, now.getTime() - Date.parse(date)))} ago`;
  if (announcedAt !== null && (lastSeen === null || Date.parse(announcedAt) > Date.parse(lastSeen)))
    return `announced itself ${ago(announcedAt)}`;
  return lastSeen === null ? "never seen" : `${seen} ${ago(lastSeen)}`;
}
