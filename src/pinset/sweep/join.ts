import type { ClusterReader } from "../../cluster/client.ts";
import { linesOf, readPinLine } from "../../cluster/pin.ts";
import { OperatorError } from "../../errors.ts";
import type { NumberedCids } from "../spill.ts";
import type { PinsetWorkspace } from "../workspace.ts";
import { VerdictCache } from "./verdict-cache.ts";
import {
  isAlarming,
  type PinStatus,
  type PinVerdict,
  readPinStatus,
  ruleOf,
  type SweepTally,
} from "./replication.ts";

/** The settings that decide whether a pin has enough copies. */
export interface SweepRules {
  readonly fallbackMin: number;
  /** The ids of all known storage nodes. */
  readonly expected: ReadonlySet<string>;
}

/** What the join of the two listings needs. */
export interface JoinOptions {
  readonly cluster: ClusterReader;
  readonly workspace: PinsetWorkspace;
  readonly rules: SweepRules;
  readonly tally: SweepTally;
  /** How many candidates (pins that look wrong) are kept by CID. The others are only counted. */
  readonly maxCandidates: number;
}

/**
 * Lists the desired pinset, then the status that the peers report, and adds the verdict on every pin to the
 * tally. Gives the ids of the peers that reported a status of any pin.
 */
export async function joinListings(options: JoinOptions): Promise<ReadonlySet<string>> {
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

async function join(options: JoinOptions, open: () => NumberedCids): Promise<ReadonlySet<string>> {
  const { cluster, workspace, rules, tally } = options;
  const cache = new VerdictCache(rules.expected);
  const desired = open();
  await cluster.list("allocations", (block) => {
    for (const line of linesOf(block)) {
      const pin = readPinLine(line);
      desired.add(pin.cid, cache.internRule(ruleOf(pin, rules.fallbackMin)));
    }
  });
  const reported = open();
  const listing = await cluster.list("status", (block) => {
    for (const line of linesOf(block)) {
      const status = readStatusLine(line);
      reported.add(status.cid, cache.internPeerMap(status.peerMap));
    }
  });
  if (listing.noContent && desired.count > 0) throw noPeerReported(desired.count);

  const unreported = open();
  const candidates = new CandidateKeys(options.maxCandidates);
  workspace.joinNumberedCids(desired, reported, (rule, peerMap, key) => {
    const verdict = cache.verdict(rule, peerMap);
    if (peerMap === -1) unreported.addKey(key(), rule);
    else tally.count(verdict);
    if (isAlarming(verdict.state)) candidates.add(key, verdict, peerMap !== -1);
  });
  if (unreported.count > 0 || candidates.size > 0)
    await listDesiredAgain(options, { cache, unreported, candidates, open });
  return cache.respondingPeers();
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
    what: `The cluster has ${pins} pins, but no peer reported the status of any of them.`,
    why: "The cluster answers like this if every peer fails, also the one on this machine (its kubo may be down).",
    remedy: "Check kubo on this machine and the log of ipfs-cluster, then run this again.",
  });
}
