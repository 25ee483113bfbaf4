import { findEdgeWarnings } from "../../edge/look.ts";
import { OperatorError, type VerbExit } from "../../errors.ts";
import { type InstalledMaster, openOwnCluster, readInstalledMaster } from "../../join/installed-node.ts";
import { nodeSourcesOf } from "../../join/node-sources.ts";
import { refuseRemoved } from "../../join/master-database.ts";
import { describeLastSign, describeSync } from "../../pinset/sweep/findings.ts";
import {
  forgetNodes,
  keepNode,
  type KnownNodes,
  serialiseKnownNodes,
} from "../../pinset/sweep/known-nodes.ts";
import { type NodeReport, type NodeSurvey, surveyNodes } from "../../pinset/sweep/nodes.ts";
import { isPeerId } from "../../settings/address.ts";
import { lockNames } from "../../settings/layout.ts";
import { RULES } from "../../settings/rules.ts";
import { countOf } from "../../units.ts";
import type { World } from "../../world.ts";

interface NodeFlags {
  readonly baseDir?: string;
}

const EXPECTED_BY: Readonly<Record<NodeReport["expectedBy"], string>> = {
  master: "a master of the pool",
  registered: "its name is registered",
  operator: "kept by the operator",
  "earlier-version": "in the list of an earlier version",
};

/** `node list`: shows the nodes that the sweep expects, and apart the members of the cluster that it does not expect. */
export async function nodeList(flags: NodeFlags, world: World): Promise<VerbExit> {
  const master = await readInstalledMaster(world, flags.baseDir);
  await refuseRemoved(world.host, master);
  const now = world.host.clock.now();
  const { nodes, strangers, namesFault } = await survey(world, master, now);
  // Between two sweeps nobody writes down who is there.
  const signOf = (node: Pick<NodeReport, "lastSeen" | "announcedAt">) =>
    node.lastSeen === now.toISOString() ? "here now" : describeLastSign(node, now, "a sweep saw it");
  if (namesFault !== null)
    world.reporter.listen({
      type: "warning",
      text: `The registered names cannot be read, so the last known ones are shown: ${namesFault}`,
    });
  const given = { path: master.layout.edgeKnown, values: master.values, hash: world.hash };
  for (const text of await findEdgeWarnings(world.host, given))
    world.reporter.listen({ type: "warning", text });
  const rows = nodes.map((node) => [
    node.name,
    node.state,
    node.sync === "synced" ? "" : describeSync(node),
    signOf(node),
    `${EXPECTED_BY[node.expectedBy]}; ${node.id}`,
  ]);
  const others = strangers.map(({ id, name, last_seen }) => [
    name,
    signOf({ lastSeen: last_seen, announcedAt: null }),
    id,
  ]);
  world.reporter.result({
    data: { verb: "node list", nodes, strangers, namesFault },
    lines: [
      `${countOf(nodes.length, "expected node")}:`,
      ...world.reporter.table(rows),
      ...(others.length === 0
        ? []
        : [
            "Members of the cluster that are not expected. Their copies do not count:",
            ...world.reporter.table(others),
          ]),
    ],
  });
  return "ok";
}

/**
 * `node keep PEERID [--name NAME]`: makes the sweep expect a node without a registered name. A name is not accepted in
 * place of the peer id, because every peer chooses its own name.
 */
export async function nodeKeep(
  id: string,
  flags: NodeFlags & { readonly name?: string },
  world: World,
): Promise<VerbExit> {
  const { name = null } = flags;
  if (name !== null && !RULES.name.holds(name))
    throw new OperatorError({
      exit: "usage",
      what: `--name is ${JSON.stringify(name)}; it must be ${RULES.name.requirement}.`,
    });
  const change = (known: KnownNodes): KnownNodes => {
    if (isPeerId(id)) return keepNode(known, { id, name, at: world.host.clock.now() });
    const named = [...known.strangers, ...known.nodes].filter((one) => one.name === id);
    throw new OperatorError({
      exit: "usage",
      what: `${JSON.stringify(id)} is not a peer id.`,
      why: "A peer chooses its own name, so a name does not show which node it is.",
      remedy:
        named.length === 0
          ? "On the node: docker exec ipfs_cluster ipfs-cluster-ctl --force-http id. It begins with 12D3KooW."
          : `Compare with the id on the node itself, then give the id: ${named.map((one) => one.id).join(", ")}.`,
    });
  };
  const { known, members } = await changeNodes(flags, world, change);
  const node = known.nodes.find((one) => one.id === id);
  const isMember = members.some((member) => member.id === id);
  if (node !== undefined && node.registered && name !== null && node.name !== name)
    world.reporter.listen({
      type: "warning",
      text: `This node has the registered name ${node.name}, so --name ${name} is not used.`,
    });
  if (!isMember)
    world.reporter.listen({
      type: "warning",
      text: `${id} is not a member of the cluster now${node?.last_seen === null ? ", and was never seen" : ""}. Until it is one, pins for every node lack its copy. If the id is wrong: fula-node node forget ${id}.`,
    });
  const shown = node === undefined || node.name === "" ? id : node.name;
  world.reporter.result({
    data: { verb: "node keep", id, name },
    lines: [`The sweep now expects ${shown}: its copies count, and it is missed when it is gone.`],
  });
  return "ok";
}

/** `node forget NODE`: neither expect nor list a node any more. */
export async function nodeForget(node: string, flags: NodeFlags, world: World): Promise<VerbExit> {
  await changeNodes(flags, world, (known, view) => forgetNodes(known, [node], view));
  world.reporter.result({
    data: { verb: "node forget", node },
    lines: [`Forgotten: ${node}. Its copies do not count, and the sweep does not list it.`],
  });
  return "ok";
}

async function changeNodes(
  flags: NodeFlags,
  world: World,
  change: (known: KnownNodes, view: NodeSurvey) => KnownNodes,
): Promise<Pick<NodeSurvey, "known" | "members">> {
  const { host } = world;
  const master = await readInstalledMaster(world, flags.baseDir);
  await refuseRemoved(world.host, master);
  const { layout } = master;
  // The sweep writes the same file.
  const lock = await world.takeLock(lockNames(layout.baseDir).sweep, {
    pid: world.pid,
    verb: "node",
    since: host.clock.now().toISOString(),
  });
  try {
    const view = await survey(world, master, host.clock.now());
    const known = change(view.known, view);
    await host.files.writeAtomic(layout.knownNodes, serialiseKnownNodes(known), { mode: 0o644 });
    return { known, members: view.members };
  } finally {
    await lock.release();
  }
}

async function survey(world: World, master: InstalledMaster, at: Date): Promise<NodeSurvey> {
  const cluster = openOwnCluster(world, master);
  const sources = { ...nodeSourcesOf(world, master), cluster, files: world.host.files };
  return surveyNodes(sources, { at, save: false });
}
