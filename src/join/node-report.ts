import { ageOfCount } from "../federation/pinset-sync.ts";
import { decimalBytes } from "../units.ts";

/** What was seen of a storage node beyond what its steps tell; null where it could not be told. */
export interface NodeFacts {
  readonly pool: string;
  /** Its own cluster peer's id. */
  readonly peerId: string | null;
  /** Everybody that it obeys; null where its cluster peer does not answer. */
  readonly masters:
    | readonly {
        readonly id: string;
        /** Null for one that is not connected. */
        readonly name: string | null;
        /** Whether its own list of peers has this node. */
        readonly countsThisNode: boolean;
      }[]
    | null;
  readonly trusted: readonly string[];
  /** How many other kubos its kubo is connected to. */
  readonly kuboPeers: number | null;
  readonly pins: {
    readonly known: number | null;
    /** How many pins are in which status here, by ipfs-cluster's word for it. */
    readonly statuses: Readonly<Record<string, number>> | null;
    /** `ageMs`: how long ago that was counted. */
    readonly master: { readonly pins: number; readonly ageMs: number } | { readonly unknown: string };
  };
  readonly ingest: {
    readonly address: string;
    readonly maxBlockBytes: number;
    readonly mode: string;
    /** The storage API that is asked who may upload, and why it is of no use; null where it answers. */
    readonly gate: { readonly url: string; readonly fault: string | null };
  };
  readonly name: { readonly name: string; readonly holder: string | null } | { readonly unknown: string };
  /** What its repository takes of what it may take. */
  readonly disk: { readonly usedBytes: number; readonly limitBytes: number } | null;
}

/** One line of the report. `attention`: there is something for the operator to do. */
export interface ReportRow {
  readonly about: string;
  readonly state: "ok" | "syncing" | "attention" | "unknown";
  readonly sentence: string;
}

/** Where ipfs-cluster's word for a pin's status is not found in its line. */
export const UNREADABLE_STATUS = "unreadable";

const FULL_SHARE = 0.9;
/** Words of ipfs-cluster (api/types.go, TrackerStatus) for a pin that will not come by itself. */
const BROKEN: readonly string[] = ["pin_error", "unpin_error", "cluster_error", "unexpectedly_unpinned"];
/** Words for a pin that is on its way. */
const UNDER_WAY: readonly string[] = ["pinning", "pin_queued"];

/** Judges what was seen, in the order in which a person reads it. */
export function judgeNode(facts: NodeFacts): readonly ReportRow[] {
  return [
    judgeMasters(facts),
    judgeKubo(facts),
    judgePins(facts),
    judgeIngest(facts),
    judgeGate(facts),
    judgeName(facts),
    judgeDisk(facts),
  ];
}

/** The last line of a report that has nothing for the operator to do: well only where all of it is. */
export function concludeReport(report: readonly ReportRow[]): string {
  const told = (state: ReportRow["state"]) =>
    report.flatMap((row) => (row.state === state ? [`"${row.about}"`] : [])).join(", ");
  const unknown = told("unknown");
  const syncing = told("syncing");
  if (unknown === "" && syncing === "") return "All is as wished.";
  if (unknown === "") return `Nothing is to be done, but this node is still syncing: see ${syncing} above.`;
  const more = syncing === "" ? "" : ` This node is still syncing: see ${syncing} above.`;
  return `Nothing is known to be done, but not everything could be told: see ${unknown} above.${more}`;
}

function judgeMasters({ pool, masters, trusted }: NodeFacts): ReportRow {
  const about = "member";
  if (masters === null) {
    const sentence = `of ${pool}, obeys ${trusted.join(", ")}; ipfs-cluster does not answer`;
    return { about, state: "unknown", sentence };
  }
  const told = masters.map(
    ({ id, name, countsThisNode }) =>
      `${id} (${name === null ? "not connected" : `${name}, ${countsThisNode ? "sees this node" : "does not see this node"}`})`,
  );
  const isMember = masters.some(({ countsThisNode }) => countsThisNode);
  const word = isMember ? "of" : "not of";
  return {
    about,
    state: isMember ? "ok" : "attention",
    sentence: `${word} ${pool}, obeys ${told.join(", ")}`,
  };
}

function judgeKubo({ kuboPeers }: NodeFacts): ReportRow {
  const about = "kubo";
  if (kuboPeers === null) return { about, state: "unknown", sentence: "does not answer" };
  const others = `connected to ${kuboPeers} other${kuboPeers === 1 ? "" : "s"}`;
  return kuboPeers > 0
    ? { about, state: "ok", sentence: others }
    : { about, state: "attention", sentence: `${others}: no content arrives` };
}

function judgePins({ pins: { known, statuses, master } }: NodeFacts): ReportRow {
  const about = "pins";
  if (known === null)
    return { about, state: "unknown", sentence: "ipfs-cluster did not list its pins whole" };
  const first = compareCounts(known, master);
  if (statuses === null)
    return { about, state: "unknown", sentence: `${first}; which are pinned was not told in time` };
  const { pinned = 0, ...others } = statuses;
  const isApart = "pins" in master && known !== master.pins;
  const more = Object.entries(others).map(([status, count]) => `, ${count} ${status}`);
  const has = (words: readonly string[]) => words.some((word) => (statuses[word] ?? 0) > 0);
  const sentence = `${first}; ${pinned} pinned${more.join("")}`;
  if (has(BROKEN)) return { about, state: "attention", sentence };
  if ("unknown" in master || has([UNREADABLE_STATUS])) return { about, state: "unknown", sentence };
  return { about, state: isApart || has(UNDER_WAY) ? "syncing" : "ok", sentence };
}

/** More than the master's is behind, too: what was unpinned meanwhile hides that new ones are missing. */
function compareCounts(known: number, master: NodeFacts["pins"]["master"]): string {
  if ("unknown" in master) return `${known} known here (the master's count is not known: ${master.unknown})`;
  const age = ageOfCount(master.ageMs);
  return known > master.pins
    ? `${known} known here, more than the master's ${master.pins}${age}: not caught up`
    : `${known} of ${master.pins} known here${age}`;
}

function judgeIngest({ ingest: { address, mode, maxBlockBytes } }: NodeFacts): ReportRow {
  const sentence = `${address}, blocks of up to ${maxBlockBytes} bytes, mode ${mode}`;
  return { about: "ingest", state: "ok", sentence };
}

function judgeGate({ ingest: { mode, gate } }: NodeFacts): ReportRow {
  const about = "quota gate";
  if (gate.fault === null) return { about, state: "ok", sentence: `${gate.url} answers` };
  const so = mode === "open" ? "lets every upload in, unmetered" : "refuses every upload";
  return { about, state: "attention", sentence: `${gate.url} ${gate.fault}, so the ingest ${so}` };
}

function judgeName({ name, peerId }: NodeFacts): ReportRow {
  const about = "name";
  if ("unknown" in name) return { about, state: "unknown", sentence: name.unknown };
  if (name.holder === null)
    return { about, state: "attention", sentence: `${name.name} is not announced to the master` };
  if (name.holder !== peerId)
    return { about, state: "attention", sentence: `${name.name} belongs to another node (${name.holder})` };
  return { about, state: "ok", sentence: `${name.name}, announced to the master` };
}

function judgeDisk({ disk }: NodeFacts): ReportRow {
  const about = "storage";
  if (disk === null) return { about, state: "unknown", sentence: "kubo does not tell" };
  const { usedBytes, limitBytes } = disk;
  const share = limitBytes > 0 ? usedBytes / limitBytes : 1;
  const sentence = `${decimalBytes(usedBytes)} of ${decimalBytes(limitBytes)} used (${(share * 100).toFixed(1)} %)`;
  return { about, state: share >= FULL_SHARE ? "attention" : "ok", sentence };
}
