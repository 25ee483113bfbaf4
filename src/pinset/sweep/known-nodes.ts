import * as z from "zod";
import { OperatorError } from "../../errors.ts";
import { visible } from "../../units.ts";
import type { NodeProgress } from "./verdict-cache.ts";

const nodeSchema = z.object({
  id: z.string(),
  name: z.string(),
  first_seen: z.iso.datetime(),
  /** When it was last a member of the cluster; null if it never was. */
  last_seen: z.iso.datetime().nullable(),
  /** True if the name is registered in the pool, as far as is known. */
  registered: z.boolean().default(false),
  /** Who keeps it: the operator (`node keep`), or a list that an earlier version wrote; null if nobody does. */
  kept: z.enum(["operator", "earlier-version"]).nullable().default("earlier-version"),
  /** When it had fetched the pinset; null while it is new. */
  synced_at: z.iso.datetime().nullable().optional(),
  /** When a new node last had more pins than before. */
  progress_at: z.iso.datetime().optional(),
  pins_done: z.number().int().nonnegative().default(0),
  pins_due: z.number().int().nonnegative().default(0),
});

const strangerSchema = z.object({
  id: z.string(),
  name: z.string(),
  first_seen: z.iso.datetime(),
  last_seen: z.iso.datetime(),
  /** True if it came while the registered names could not be read: it may be a node of the pool. */
  undecided: z.literal(true).optional(),
});

const fileSchema = z.object({
  nodes: z.array(
    nodeSchema.transform(({ synced_at, progress_at, ...node }) => ({
      ...node,
      // A node of a list of 0.1.0 is not new.
      synced_at: synced_at === undefined ? node.first_seen : synced_at,
      progress_at: progress_at ?? node.first_seen,
    })),
  ),
  strangers: z.array(strangerSchema).default([]),
  forgotten: z.array(z.string()).default([]),
});

/** The file of known nodes. The cluster itself drops a dead node from its lists. */
export type KnownNodes = z.infer<typeof fileSchema>;

/** A node that the sweep expects: a master, a node with a registered name, or one that is kept. */
export type KnownNode = KnownNodes["nodes"][number];

/** A member of the cluster that the sweep does not expect: everybody who knows the cluster's secret can be one. */
export type Stranger = KnownNodes["strangers"][number];

/** Why a node is expected. */
export type ExpectedBy = "master" | "registered" | "operator" | "earlier-version";

/** The masters of the pool, by peer id. The first is this one. */
export type Masters = readonly [own: string, ...others: string[]];

/** What is seen of the pool now. */
export interface PoolView {
  readonly masters: Masters;
  /** The nodes with a registered name; null if the database did not answer. */
  readonly registered: readonly { readonly id: string; readonly name: string }[] | null;
  readonly members: readonly { readonly id: string; readonly peername: string }[];
  readonly at: Date;
}

const NOTHING: KnownNodes = { nodes: [], strangers: [], forgotten: [] };
/** More strangers are not kept by name: anybody can make as many as they want. */
const MAX_STRANGERS = 200;
const STRANGER_KEPT_MS = 30 * 24 * 3_600_000;
const MAX_NAME = 64;

/** A new node may be without progress for so long. A single pin can be large. */
const STALL_MS = 6 * 3_600_000;
/** ipfs-cluster pins again every 12 minutes what an older removal, which arrived late, took away from a new node. */
const SETTLE_MS = 15 * 60_000;
/** A clock that was set back by less than this does not matter. */
const CLOCK_TOLERANCE_MS = 600_000;
/** A node with this share of its pins has fetched the pinset; new pins arrive all the time. */
const SYNCED_SHARE = 0.99;

/** Reads the file of known nodes. Throws an OperatorError (integrity) if it is malformed: an empty list instead would lose the dead nodes. */
export function parseKnownNodes(text: string | null, path: string): KnownNodes {
  if (text === null) return NOTHING;
  try {
    return fileSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new OperatorError({
      exit: "integrity",
      what: `The list of known storage nodes in ${path} cannot be read.`,
      why: "Without the list, the sweep cannot notice that a node is gone.",
      remedy:
        "Repair the file. Or remove it while every storage node is up: the next sweep creates it again. Then keep the nodes that have no registered name again: fula-node node keep PEERID.",
      cause,
    });
  }
}

/** The text of the file, one node per line so that people can read it. */
export function serialiseKnownNodes({ nodes, strangers, forgotten }: KnownNodes): string {
  const lines = (list: readonly unknown[]) => list.map((one) => `  ${JSON.stringify(one)}`).join(",\n");
  return `{"nodes":[\n${lines(nodes)}\n],"strangers":[\n${lines(strangers)}\n],"forgotten":${JSON.stringify(forgotten)}}\n`;
}

/**
 * The known nodes, updated with what is seen now. Expected are the masters, the registered names, and what is kept.
 * If the registered names are not known now, the last known ones stay expected. Every other member is a stranger.
 */
export function updateNodes(before: KnownNodes, view: PoolView): KnownNodes {
  const { masters, members, at } = view;
  const now = at.toISOString();
  const memberById = new Map(members.map(({ id, peername }) => [id, peername]));
  const byId = new Map(before.nodes.map((node) => [node.id, node]));
  const registered =
    view.registered === null
      ? new Map(before.nodes.flatMap(({ id, name, registered: is }) => (is ? [[id, name] as const] : [])))
      : new Map(view.registered.map(({ id, name }) => [id, name]));
  // A node that was forgotten, and is back with a registered name or as a master, is expected again.
  const isBack = (id: string) => memberById.has(id) && (masters.includes(id) || registered.has(id));
  const forgotten = before.forgotten.filter((id) => !isBack(id));

  const expected = new Set([
    ...masters,
    ...[...registered.keys()].filter((id) => !forgotten.includes(id)),
    ...before.nodes.filter(({ kept }) => kept !== null).map(({ id }) => id),
  ]);
  const nodes = [...expected].sort().map((id): KnownNode => {
    const known = byId.get(id);
    const isRegistered = registered.has(id);
    const kept = known?.kept ?? null;
    const name = registered.get(id) ?? (kept === "operator" ? known?.name : undefined);
    return {
      ...(known ?? newNode(id, id === masters[0], now)),
      name: nameOf(name ?? memberById.get(id) ?? known?.name ?? ""),
      last_seen: memberById.has(id) ? now : (known?.last_seen ?? null),
      registered: isRegistered,
      kept: kept === "earlier-version" && (isRegistered || masters.includes(id)) ? null : kept,
    };
  });
  const isKnown = view.registered !== null;
  return {
    nodes,
    strangers: updateStrangers(before, expected, { members: memberById, at, isKnown }),
    forgotten,
  };
}

/**
 * True for a member of which it is not known whether it is a node of the pool, because the database has not answered since it
 * came. A new node fetches its pins first, so for as long as one may do that, what is allocated to it is no alarm.
 */
export function isUndecided({ undecided, first_seen, last_seen }: Stranger, at: Date): boolean {
  const sinceMs = at.getTime() - Date.parse(first_seen);
  return undecided === true && last_seen === at.toISOString() && sinceMs >= 0 && sinceMs < STALL_MS;
}

function newNode(id: string, isOwn: boolean, now: string): KnownNode {
  // This master has the pinset from the beginning.
  const synced_at = isOwn ? now : null;
  const times = { first_seen: now, last_seen: null, synced_at, progress_at: now };
  return { id, name: "", ...times, registered: false, kept: null, pins_done: 0, pins_due: 0 };
}

function updateStrangers(
  before: KnownNodes,
  expected: ReadonlySet<string>,
  {
    members,
    at,
    isKnown,
  }: { readonly members: ReadonlyMap<string, string>; readonly at: Date; readonly isKnown: boolean },
): Stranger[] {
  const now = at.toISOString();
  const isStranger = (id: string) => !expected.has(id) && !before.forgotten.includes(id);
  const kept = before.strangers.filter(({ id }) => isStranger(id));
  const byId = new Map(
    kept.map(({ undecided, ...one }): [string, Stranger] => [
      one.id,
      isKnown || undecided === undefined ? one : { ...one, undecided },
    ]),
  );
  // What was expected until now does not vanish without a trace.
  for (const { id, name, first_seen, last_seen } of before.nodes)
    if (isStranger(id) && last_seen !== null) byId.set(id, { id, name, first_seen, last_seen });
  for (const [id, peername] of members)
    if (isStranger(id)) {
      const old = byId.get(id) ?? { first_seen: now, ...(isKnown ? {} : { undecided: true as const }) };
      byId.set(id, { ...old, id, name: nameOf(peername), last_seen: now });
    }
  return [...byId.values()]
    .filter(({ last_seen }) => at.getTime() - Date.parse(last_seen) < STRANGER_KEPT_MS)
    .sort((a, b) =>
      a.first_seen === b.first_seen ? (a.id < b.id ? -1 : 1) : a.first_seen < b.first_seen ? -1 : 1,
    )
    .slice(0, MAX_STRANGERS);
}

/** A name that a peer gave to itself, without invisible characters and not too long. */
function nameOf(given: string): string {
  return visible(given, { oneLine: true }).slice(0, MAX_NAME);
}

/** Why a node is expected. */
export function expectedBy(node: KnownNode, masters: readonly string[]): ExpectedBy {
  if (masters.includes(node.id)) return "master";
  return node.registered ? "registered" : (node.kept ?? "registered");
}

/** Whether a node has fetched the pinset: `synced`; `syncing`: it is new and makes progress; `stalled`: it is new and does not. */
export function syncOf(node: KnownNode, at: Date): "synced" | "syncing" | "stalled" {
  if (node.synced_at !== null) return "synced";
  const idleMs = at.getTime() - Date.parse(node.progress_at);
  return idleMs > STALL_MS || idleMs < -CLOCK_TOLERANCE_MS ? "stalled" : "syncing";
}

/** True for a node that has fetched the pinset only just now: what it lacks it may not have lost. Never for this master, which fetches nothing. */
export function isSettling(node: KnownNode, masters: Masters, at: Date): boolean {
  if (node.synced_at === null || node.id === masters[0]) return false;
  const sinceMs = at.getTime() - Date.parse(node.synced_at);
  return sinceMs >= 0 && sinceMs < SETTLE_MS;
}

/**
 * The known nodes with the progress of this sweep. Only more pins than ever before are progress. A node with nearly all
 * of its pins is synced, and stays so: if it loses pins later, they are missing.
 */
export function recordProgress(
  known: KnownNodes,
  progress: ReadonlyMap<string, NodeProgress>,
  at: Date,
): KnownNodes {
  const now = at.toISOString();
  const nodes = known.nodes.map((node): KnownNode => {
    const { due, done } = progress.get(node.id) ?? { due: 0, done: 0 };
    if (node.synced_at !== null) return { ...node, pins_done: done, pins_due: due };
    const isMember = node.last_seen === now;
    const isSynced = isMember && done >= due * SYNCED_SHARE;
    const isFurther = done > node.pins_done;
    return {
      ...node,
      synced_at: isSynced ? now : null,
      progress_at: isFurther ? now : node.progress_at,
      pins_done: Math.max(done, node.pins_done),
      pins_due: due,
    };
  });
  return { ...known, nodes };
}

/**
 * Keeps a node: its copies count from now on, and it is missed when it is gone. `name` is the operator's name for it; a
 * registered name goes first.
 */
export function keepNode(
  known: KnownNodes,
  { id, name, at }: { readonly id: string; readonly name: string | null; readonly at: Date },
): KnownNodes {
  const before = known.nodes.find((node) => node.id === id);
  const stranger = known.strangers.find((one) => one.id === id);
  const node = before ?? { ...newNode(id, false, at.toISOString()), last_seen: stranger?.last_seen ?? null };
  const shown = node.registered ? node.name : nameOf(name ?? stranger?.name ?? node.name);
  const kept: KnownNode = { ...node, kept: "operator", name: shown };
  return {
    nodes: [...known.nodes.filter((one) => one.id !== id), kept].sort((a, b) => (a.id < b.id ? -1 : 1)),
    strangers: known.strangers.filter((one) => one.id !== id),
    forgotten: known.forgotten.filter((one) => one !== id),
  };
}

/**
 * Forgets nodes or strangers, each given by id or name: they are neither expected nor listed any more. Throws an
 * OperatorError (usage) if a node is not known, if several have the name, or if it would be expected again at once:
 * a master, or a member with a registered name.
 */
export function forgetNodes(
  known: KnownNodes,
  given: readonly string[],
  view: { readonly masters: readonly string[]; readonly members: readonly { readonly id: string }[] },
): KnownNodes {
  const all = [...known.nodes, ...known.strangers];
  const ids = given.map((one) => {
    const byId = all.filter(({ id }) => id === one);
    const [found, another] = byId.length > 0 ? byId : all.filter(({ name }) => name === one);
    if (found === undefined || another !== undefined) {
      throw new OperatorError({
        exit: "usage",
        what:
          found === undefined
            ? `No node ${visible(one, { oneLine: true })} is known.`
            : `Several nodes have the name ${one}. Give the peer id.`,
        remedy: `Known: ${all.map(({ id, name }) => `${name} (${id})`).join(", ")}.`,
      });
    }
    refuseExpected(found, known, view);
    return found.id;
  });
  return {
    nodes: known.nodes.filter(({ id }) => !ids.includes(id)),
    strangers: known.strangers.filter(({ id }) => !ids.includes(id)),
    forgotten: [...new Set([...known.forgotten, ...ids])],
  };
}

function refuseExpected(
  { id, name }: { readonly id: string; readonly name: string },
  known: KnownNodes,
  {
    masters,
    members,
  }: { readonly masters: readonly string[]; readonly members: readonly { readonly id: string }[] },
): void {
  const refuse = (why: string, remedy: string): never => {
    throw new OperatorError({
      exit: "usage",
      what: `${name === "" ? id : name} cannot be forgotten: ${why}.`,
      remedy,
    });
  };
  if (masters[0] === id) refuse("it is this master", "To remove this master from the pool, run leave.");
  if (masters.includes(id))
    refuse(
      "it is a master of the pool",
      `If it is gone for good: fula-node trust remove ${name === "" ? id : name}. See docs/lost-master.md.`,
    );
  const isMember = members.some((member) => member.id === id);
  if (isMember && known.nodes.some((node) => node.id === id && node.registered))
    refuse(
      "it is a member of the cluster, and its name is registered",
      "Run leave on it, or stop it first. After half a minute it is not a member any more.",
    );
}
