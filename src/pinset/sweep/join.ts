import type { ClusterReader } from "../../cluster/client.ts";
import { linesOf, readPinLine } from "../../cluster/pin.ts";
import { OperatorError } from "../../errors.ts";
import type { NumberedCids } from "../spill.ts";
import type { PinsetWorkspace } from "../workspace.ts";
import { type NodeProgress, VerdictCache } from "./verdict-cache.ts";
import {
  type ExpectedNodes,
  isAlarming,
  type PinStatus,
  type PinVerdict,
  readPinStatus,
  ruleOf,
  type SweepTally,
} from "./replication.ts";

/** What the join of the two listings needs. */
export interface JoinOptions {
  readonly cluster: ClusterReader;
  readonly workspace: PinsetWorkspace;
  readonly nodes: ExpectedNodes;
  readonly tally: SweepTally;
  /** The contents that the pinning API still searches for. */
  readonly searched: ReadonlySet<string>;
  /** How many candidates (pins that look wrong) are kept by CID. The others are only counted. */
  readonly maxCandidates: number;
}

/** What the two listings say about the peers. */
export interface Joined {
  /** The expected nodes that reported a status of any pin. */
  readonly responding: ReadonlySet<string>;
  readonly progress: ReadonlyMap<string, NodeProgress>;
}

/**
 * Lists the desired pinset, then the status that the peers report, and adds the verdict on every pin to the
 * tally. Throws (unavailable) if no expected node reported the status of any pin.
 */
export async function joinListings(options: JoinOptions): Promise<Joined> {
  const { workspace } = options;
  const opened: NumberedCids[] = [];
  const open = (): NumberedCids => {
    const cids = workspace.openNumberedCids();
    opened.push(cids);
    return cids;
  };
  try {
    return await join(options, open);
  } finally {
    for (const cids of opened) cids.close();
  }
}

async function join(options: JoinOptions, open: () => NumberedCids): Promise<Joined> {
  const { cluster, workspace, nodes, tally, searched } = options;
  const cache = new VerdictCache(nodes);
  const desired = open();
  await cluster.list("allocations", (block) => {
    for (const line of linesOf(block)) {
      const pin = readPinLine(line);
      desired.add(pin.cid, cache.internRule(ruleOf(pin, searched), pin.direct));
    }
  });
  const reported = open();
  const listing = await cluster.list("status", (block) => {
    for (const line of linesOf(block)) {
      const status = readStatusLine(line);
      reported.add(status.cid, cache.internPeerMap(status.peerMap));
    }
  });
  const responding = cache.respondingPeers();
  if (desired.count > 0 && (listing.noContent || responding.size === 0)) throw noPeerReported(desired.count);

  const unreported = open();
  const candidates = new CandidateKeys(options.maxCandidates);
  workspace.joinNumberedCids(desired, reported, (rule, peerMap, key) => {
    const verdict = cache.count(rule, peerMap);
    if (peerMap === -1) unreported.addKey(key(), rule);
    else tally.count(verdict);
    if (isAlarming(verdict)) candidates.add(key, verdict, peerMap !== -1);
  });
  if (unreported.count > 0 || candidates.size > 0)
    await listDesiredAgain(options, { cache, unreported, candidates, open });
  return { responding, progress: cache.progress() };
}

/**
 * Lists the desired pinset a second time. This gives the CIDs of the candidates, and shows which of the pins
 * that no peer reported were unpinned in the meantime.
 */
async function listDesiredAgain(
  { cluster, workspace, tally }: JoinOptions,
  seen: {
    readonly cache: VerdictCache;
    readonly unreported: NumberedCids;
    readonly candidates: CandidateKeys;
    readonly open: () => NumberedCids;
  },
): Promise<void> {
  const { cache, unreported, candidates } = seen;
  const stillDesired = seen.open();
  await cluster.list("allocations", (block) => {
    for (const line of linesOf(block)) {
      const { cid } = readPinLine(line);
      const key = workspace.cidKey(cid);
      if (unreported.count > 0) stillDesired.addKey(key, 0);
      const verdict = candidates.take(key);
      if (verdict !== null) tally.addCandidate(cid, verdict, false);
    }
  });
  workspace.joinNumberedCids(unreported, stillDesired, (rule, found) => {
    if (found !== -1) tally.count(cache.verdict(rule, -1));
  });
  for (const verdict of candidates.countedButUnpinned()) tally.uncount(verdict);
}

/** Candidates whose CIDs are not known yet, by key, up to the limit. */
class CandidateKeys {
  readonly #limit: number;
  readonly #verdicts = new Map<string, { readonly verdict: PinVerdict; readonly counted: boolean }>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#verdicts.size;
  }

  add(key: () => string, verdict: PinVerdict, counted: boolean): void {
    if (this.#verdicts.size < this.#limit) this.#verdicts.set(key(), { verdict, counted });
  }

  /** Removes the pin with this key and gives its verdict; null if it is not a candidate. */
  take(key: string): PinVerdict | null {
    const found = this.#verdicts.get(key);
    if (found === undefined) return null;
    this.#verdicts.delete(key);
    return found.verdict;
  }

  /** The verdicts that were counted, on pins that are not in the desired pinset any more. Call it after the second listing. */
  countedButUnpinned(): readonly PinVerdict[] {
    return [...this.#verdicts.values()].filter(({ counted }) => counted).map(({ verdict }) => verdict);
  }
}

function readStatusLine(line: string): PinStatus {
  let value: unknown = null;
  let cause: unknown;
  try {
    value = JSON.parse(line);
  } catch (thrown) {
    cause = thrown;
  }
  const status = readPinStatus(value);
  if (status !== null) return status;
  throw new OperatorError({
    exit: "unavailable",
    what: `A line of the pin status list cannot be read: ${line.slice(0, 80)}`,
    why: "A list with an unreadable line is not complete.",
    cause,
  });
}

function noPeerReported(pins: number): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `The cluster has ${pins} pins, but no expected node reported the status of any of them.`,
    why: "The cluster answers like this if every peer fails, also the one on this machine (its kubo may be down). What other peers report does not count.",
    remedy:
      "Check kubo on this machine and the log of ipfs-cluster, then run this again. `fula-node node list` shows which nodes are expected.",
  });
}
