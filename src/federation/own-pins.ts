import type { Cluster, ClusterReader } from "../cluster/client.ts";
import { UNPINNED } from "../cluster/pin.ts";
import { OperatorError } from "../errors.ts";

/**
 * ipfs-cluster pins again what is missing at its start, and then every 12 minutes (pin_recover_interval). A pin that was
 * removed and added again can be missing on a new node until then: the removal, which is older, arrives last there, and
 * ipfs-cluster takes the pin out of kubo although its pinset has it (consensus/crdt, DeleteHook).
 */
export const RECOVER_INTERVAL_MS = 12 * 60_000;

/** The status of a pin whose line contains no status of ipfs-cluster. */
export const UNREADABLE_STATUS = "unreadable";

/** This node's pins by their status. */
export interface OwnPins {
  /** The number of pins by status, in ipfs-cluster's terms. */
  readonly counts: Readonly<Record<string, number>>;
  /** The pins that are UNPINNED according to the list, at most MAX_LISTED. The list is wrong about direct pins. */
  readonly unpinned: readonly string[];
}

const MAX_LISTED = 1_000;
/** Requests about single pins for one look. */
const MAX_ASKED = 20;

/** Reads the status of all pins on this node, in constant memory. Throws an OperatorError if the list is not complete. */
export async function listOwnPins(cluster: Pick<ClusterReader, "list">): Promise<OwnPins> {
  const counts: Record<string, number> = {};
  const unpinned: string[] = [];
  await cluster.list("own-status", (block) => {
    for (const line of block.toString("utf8").split("\n")) {
      if (line === "") continue;
      const status = statusOf(line);
      counts[status] = (counts[status] ?? 0) + 1;
      const cid = status === UNPINNED && unpinned.length < MAX_LISTED ? cidOf(line) : null;
      if (cid !== null) unpinned.push(cid);
    }
  });
  return { counts, unpinned };
}

/** The same, after a second look at some of the pins that are missing according to the list: it is wrong about direct pins. */
export async function checkOwnPins(
  cluster: Pick<ClusterReader, "list" | "ownStatus">,
): Promise<Readonly<Record<string, number>>> {
  const { counts, unpinned } = await listOwnPins(cluster);
  const checked: Record<string, number> = { ...counts };
  const statuses = await Promise.all(unpinned.slice(0, MAX_ASKED).map((cid) => cluster.ownStatus(cid)));
  for (const answer of statuses) {
    const status = statusOf(JSON.stringify(answer));
    checked[UNPINNED] = (checked[UNPINNED] ?? 0) - 1;
    checked[status] = (checked[status] ?? 0) + 1;
  }
  if (checked[UNPINNED] === 0) delete checked[UNPINNED];
  return checked;
}

/**
 * Makes this node's ipfs-cluster pin again what is missing in kubo although the pinset has it. Pins in `known` are left
 * out: they turned out to be there. Returns how many are still missing; null if ipfs-cluster does not say it.
 */
export async function recoverOwnPins(
  cluster: Pick<Cluster, "list" | "recoverHere">,
  known: Set<string>,
): Promise<number | null> {
  try {
    const { counts, unpinned } = await listOwnPins(cluster);
    const missing = unpinned.filter((cid) => !known.has(cid));
    for (const cid of missing) {
      const status = statusOf(JSON.stringify(await cluster.recoverHere(cid)));
      if (status === "pinned") known.add(cid);
    }
    const more = (counts[UNPINNED] ?? 0) - unpinned.length;
    return more + missing.filter((cid) => !known.has(cid)).length;
  } catch (thrown) {
    if (thrown instanceof OperatorError) return null;
    throw thrown;
  }
}

/** The status of one pin in ipfs-cluster's terms: of a line of the list, or of the answer about one pin, of one peer. */
function statusOf(line: string): string {
  const peers = /"peer_map":\{"[^"]+":\{.*?"status":"([a-z_]+)"/.exec(line);
  return peers?.[1] ?? UNREADABLE_STATUS;
}

function cidOf(line: string): string | null {
  return /"cid":"([A-Za-z0-9]+)"/.exec(line)?.[1] ?? null;
}
