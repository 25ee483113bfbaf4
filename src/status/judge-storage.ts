import { judgeSpace, type SpaceReading, type SpaceRules } from "../settings/space-limits.ts";
import { ageOfCount } from "../federation/pinset-sync.ts";
import { UNPINNED } from "../cluster/pin.ts";
import { UNREADABLE_STATUS } from "../federation/own-pins.ts";
import { STORAGE_NAMES } from "../settings/layout.ts";

import { type HttpAnswer, type Judged, LATE, type Late, REPAIR_STORAGE } from "./part.ts";

/** The state of a storage node beyond its steps; null for everything unknown. */
export interface NodeFacts {
  readonly pool: string;
  /** The id of its own cluster peer. */
  readonly peerId: string | null;
  /** The masters that it trusts; null if its cluster peer does not answer. */
  readonly masters:
    | readonly {
        readonly id: string;
        /** Null for a master that is not connected. */
        readonly name: string | null;
        /** True if this node is in the master's list of peers. */
        readonly countsThisNode: boolean;
      }[]
    | null;
  readonly trusted: readonly string[];
  /** The number of other kubo nodes that its kubo is connected to. */
  readonly kuboPeers: number | null;
  readonly pins: {
    readonly known: number | null;
    /** The number of pins on this node by status, in ipfs-cluster's terms. */
    readonly statuses: Readonly<Record<string, number>> | null;
    /** True while a new ipfs-cluster may not yet have pinned again what older removals took away. */
    readonly isSettling: boolean;
    /** `ageMs`: the age of the count. */
    readonly master: { readonly pins: number; readonly ageMs: number } | { readonly unknown: string };
  };
  readonly ingest: {
    readonly address: string;
    readonly maxBlockBytes: number;
    readonly mode: string;
    /** The storage API, which decides who may upload. `fault`: why it can't be used; null if it answers. */
    readonly gate: { readonly url: string; readonly fault: string | null };
  };
  /** Its name, and who has it at the master. `lacksInvite`: the master registers invited nodes only, and this one has no invite. */
  readonly name:
    | {
        readonly name: string;
        readonly holder: string | null;
        readonly lacksInvite: boolean;
        /** The peers of removed masters that the master knows this node to trust. */
        readonly removed?: readonly string[];
      }
    /** The master manages another pool. */
    | { readonly refused: string }
    | { readonly unknown: string; readonly remedy?: string };
  /** The space of its repository and of the disk. */
  readonly disk: (SpaceReading & Pick<SpaceRules, "reserveBytes">) | null;
}

/** One line of the report. `attention`: the operator has to do something. `syncing`: works, and is not done. */
export interface ReportRow {
  readonly about: string;
  readonly state: "ok" | "syncing" | "attention" | "down" | "unknown";
  readonly sentence: string;
  /** What to do, if anything. */
  readonly todo?: string;
}

/** A row as a part. A node that syncs works. */
export function partOf({ state, sentence, todo }: ReportRow): Judged {
  return { state: state === "syncing" ? "ok" : state, summary: sentence, todo: todo ?? null, evidence: {} };
}

/** Statuses of ipfs-cluster (api/types.go, TrackerStatus) for a pin that does not recover by itself. */
const BROKEN: readonly string[] = ["pin_error", "unpin_error", "cluster_error"];
/** Statuses for a pin that is being fetched or waits for it. */
const UNDER_WAY: readonly string[] = ["pinning", "pin_queued"];

const CLUSTER_LOG = `docker logs ${STORAGE_NAMES.cluster}`;
const KUBO_LOG = `docker logs ${STORAGE_NAMES.kubo}`;

/** What to do if the master manages another pool than the settings name. */
const OTHER_POOL = `${REPAIR_STORAGE} --set CLUSTERNAME=POOL --accept-pool-change`;

/** The masters that it trusts, and whether one of them counts it as a member. */
export function judgeMasters({
  pool,
  masters,
  trusted,
  name,
}: Pick<NodeFacts, "pool" | "masters" | "trusted" | "name">): ReportRow {
  const about = "member";
  if (masters === null) {
    const sentence = `of ${pool}, trusts ${trusted.join(", ")}; ipfs-cluster does not answer`;
    return { about, state: "unknown", sentence, todo: CLUSTER_LOG };
  }
  const described = masters.map(
    ({ id, name: peername, countsThisNode }) =>
      `${id} (${peername === null ? "not connected" : `${peername}, ${countsThisNode ? "sees this node" : "does not see this node"}`})`,
  );
  const isMember = masters.some(({ countsThisNode }) => countsThisNode);
  if ("refused" in name)
    return {
      about,
      state: "attention",
      sentence: `of a pool that is not ${pool}, trusts ${described.join(", ")}`,
      todo: OTHER_POOL,
    };
  const prefix = isMember ? "of" : "not of";
  const sentence = `${prefix} ${pool}, trusts ${described.join(", ")}`;
  const removed = trusted.filter((id) => "name" in name && name.removed?.includes(id) === true);
  if (removed.length > 0)
    return {
      about,
      state: "attention",
      sentence: `still trusts a master that was removed from ${pool}: ${removed.join(", ")}`,
      todo: `${REPAIR_STORAGE} --accept-pool-change, with a new invite or by the pool API`,
    };
  if (isMember) return { about, state: "ok", sentence };
  const todo = "check that this machine and the master reach each other on port 9096";
  return { about, state: "attention", sentence, todo };
}

/** Whether its kubo is connected to others. */
export function judgeKubo(kuboPeers: NodeFacts["kuboPeers"]): ReportRow {
  const about = "kubo";
  if (kuboPeers === null) return { about, state: "unknown", sentence: "does not answer", todo: KUBO_LOG };
  const others = `connected to ${kuboPeers} other node${kuboPeers === 1 ? "" : "s"}`;
  return kuboPeers > 0
    ? { about, state: "ok", sentence: others }
    : {
        about,
        state: "attention",
        sentence: `${others}: it receives no content`,
        todo: "check that this machine and the other nodes reach each other on port 4001",
      };
}

/** The pins that it knows, compared with the master's count, and their status here. */
export function judgePins({ known, statuses, isSettling, master }: NodeFacts["pins"]): ReportRow {
  const about = "pins";
  if (known === null)
    return {
      about,
      state: "unknown",
      sentence: "ipfs-cluster did not send a complete list of pins",
      todo: CLUSTER_LOG,
    };
  const first = compareCounts(known, master);
  if (statuses === null)
    return {
      about,
      state: "unknown",
      sentence: `${first}; their status did not arrive in time`,
      todo: `look again; if it stays so: ${CLUSTER_LOG}`,
    };
  const { pinned = 0, ...others } = statuses;
  const isDifferent = "pins" in master && known !== master.pins;
  const more = Object.entries(others).map(([status, count]) => `, ${count} ${status}`);
  const has = (some: readonly string[]) => some.some((status) => (statuses[status] ?? 0) > 0);
  const sentence = `${first}; ${pinned} pinned${more.join("")}`;
  if (has(BROKEN)) return { about, state: "attention", sentence, todo: CLUSTER_LOG };
  if (has([UNPINNED]) && !isSettling)
    return { about, state: "attention", sentence, todo: `have them pinned again: ${REPAIR_STORAGE}` };
  if (has([UNREADABLE_STATUS])) return { about, state: "unknown", sentence, todo: CLUSTER_LOG };
  if ("unknown" in master)
    return { about, state: "unknown", sentence, todo: "see the line of the quota gate" };
  return { about, state: isDifferent || has([...UNDER_WAY, UNPINNED]) ? "syncing" : "ok", sentence };
}

/** More pins than the master also means not up to date: pins that were removed there meanwhile may hide that new ones are missing here. */
function compareCounts(known: number, master: NodeFacts["pins"]["master"]): string {
  if ("unknown" in master) return `${known} known here (the master's count is unknown: ${master.unknown})`;
  const age = ageOfCount(master.ageMs);
  return known > master.pins
    ? `${known} known here, more than the ${master.pins} of the master${age}: not in sync`
    : `${known} of ${master.pins} known here${age}`;
}

/** The ingest: where it listens, and what it takes. */
export function judgeIngest(
  { address, mode, maxBlockBytes }: NodeFacts["ingest"],
  health: HttpAnswer | Late,
): ReportRow {
  const about = "ingest";
  const todo = `docker logs ${STORAGE_NAMES.ingest}`;
  if (health === LATE)
    return { about, state: "unknown", sentence: `${address} did not answer in time`, todo };
  if (health === null) return { about, state: "down", sentence: `${address} does not answer`, todo };
  if (health.status !== 200)
    return { about, state: "down", sentence: `${address} does not work: it answers ${health.status}`, todo };
  return {
    about,
    state: "ok",
    sentence: `${address}, blocks of up to ${maxBlockBytes} bytes, mode ${mode}`,
  };
}

/** An ingest whose container is not as the settings say: what runs may work, at the address from before. */
export function judgeUnapplied({ address }: NodeFacts["ingest"]): ReportRow {
  return {
    about: "ingest",
    state: "attention",
    sentence: `${address} does not answer: the settings were changed, and are not applied yet`,
    todo: REPAIR_STORAGE,
  };
}

/** An ingest that is set to an address of another machine, so it was not asked. */
export function judgeElsewhere(bind: string): ReportRow {
  return {
    about: "ingest",
    state: "attention",
    sentence: `not asked: INGEST_BIND is ${bind}, which is not an address of this machine`,
    todo: `${REPAIR_STORAGE} --set INGEST_BIND=::`,
  };
}

/** A remedy in sentences, as the end of a line. */
export function endless(remedy: string): string {
  return remedy.replace(/\.$/, "");
}

/** The name of this node at the master. */
export function judgeName({ name, peerId }: Pick<NodeFacts, "name" | "peerId">): ReportRow {
  const about = "name";
  if ("unknown" in name)
    return {
      about,
      state: "unknown",
      sentence: name.unknown,
      todo: name.remedy === undefined ? "see the line of the quota gate" : endless(name.remedy),
    };
  if ("refused" in name)
    return {
      about,
      state: "attention",
      sentence: name.refused,
      todo: OTHER_POOL,
    };
  if (name.holder === null && name.lacksInvite)
    return {
      about,
      state: "attention",
      sentence: `${name.name} is not announced to the master, and this node has no invite`,
      todo: `ask the master's operator for one, then ${REPAIR_STORAGE} --invite TOKEN`,
    };
  if (name.holder === null)
    return {
      about,
      state: "attention",
      sentence: `${name.name} is not announced to the master`,
      todo: REPAIR_STORAGE,
    };
  if (peerId === null)
    return {
      about,
      state: "unknown",
      sentence: `${name.name}; the id of this node is not known`,
      todo: CLUSTER_LOG,
    };
  if (name.holder !== peerId)
    return {
      about,
      state: "attention",
      sentence: `${name.name} belongs to another node (${name.holder})`,
      todo: `${REPAIR_STORAGE} --set CLUSTER_PEERNAME=OTHER`,
    };
  return { about, state: "ok", sentence: `${name.name}, announced to the master` };
}

/** The space of its repository. */
export function judgeDisk(disk: NodeFacts["disk"], blockBytes: number): ReportRow {
  const { state, sentence, todo } = judgeSpace(disk, { reserveBytes: disk?.reserveBytes ?? 0, blockBytes });
  return { about: "storage", state, sentence, ...(todo === null ? {} : { todo }) };
}
