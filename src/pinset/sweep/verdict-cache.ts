import { UNPINNED } from "../../cluster/pin.ts";
import {
  type ExpectedNodes,
  isCopy,
  judgePin,
  type PeerPinInfo,
  type PinVerdict,
  type ReplicationRule,
} from "./replication.ts";

/** How many pins a node should have, and how many it reports. */
export interface NodeProgress {
  readonly due: number;
  readonly done: number;
}

/** Gives each peer a number, and keeps one copy of each id. */
class InternTable {
  readonly #numbers = new Map<string, number>();
  readonly ids: string[] = [];

  number(id: string): number {
    const known = this.#numbers.get(id);
    if (known !== undefined) return known;
    this.#numbers.set(id, this.ids.length);
    return this.ids.push(id) - 1;
  }
}

type PeerMap = Readonly<Record<string, PeerPinInfo>>;

/**
 * A cache of verdicts. Millions of pins have only few different rules, and peers report only few different
 * combinations of status: some hundreds, or as many as there are sets of allocations. Each different rule and
 * each different peer map is kept once and has a number. The verdict on each pair is computed once.
 */
export class VerdictCache {
  readonly #nodes: ExpectedNodes;
  readonly #peers = new InternTable();
  readonly #ruleNumbers = new Map<string, number>();
  readonly #rules: (ReplicationRule & { readonly direct: boolean })[] = [];
  readonly #peerMapNumbers = new Map<string, number>();
  readonly #peerMaps: PeerMap[] = [];
  readonly #judged = new Map<number, JudgedPair>();

  constructor(nodes: ExpectedNodes) {
    this.#nodes = nodes;
  }

  /** Stores a rule if it is new, and gives its number. `direct`: of a pin that is not recursive. */
  internRule(rule: ReplicationRule, direct = false): number {
    const allocations = rule.allocations.map((id) => this.#peers.number(id));
    const key = `${direct ? "direct " : ""}${rule.searched === true ? "searched " : ""}${rule.everywhere ? "everywhere" : `${rule.min} ${allocations.join()}`}`;
    const known = this.#ruleNumbers.get(key);
    if (known !== undefined) return known;
    this.#ruleNumbers.set(key, this.#rules.length);
    return (
      this.#rules.push({
        ...rule,
        direct,
        allocations: allocations.map((number) => this.#peers.ids[number] as string),
      }) - 1
    );
  }

  /**
   * Stores the status that the expected nodes report for a pin if it is new, and gives its number. What strangers
   * report is left out: a few of them could make every peer map different, and so fill the memory.
   */
  internPeerMap(peerMap: PeerMap): number {
    let key = "";
    for (const id in peerMap) {
      if (!this.#nodes.ids.has(id)) continue;
      const { status, attempts } = peerMap[id] as PeerPinInfo;
      key += `${this.#peers.number(id)} ${status} ${Math.min(attempts, 2)},`;
    }
    const known = this.#peerMapNumbers.get(key);
    if (known !== undefined) return known;
    const expected = Object.entries(peerMap).filter(([id]) => this.#nodes.ids.has(id));
    const kept = expected.map(([id, info]) => [this.#peers.ids[this.#peers.number(id)] as string, info]);
    this.#peerMapNumbers.set(key, this.#peerMaps.length);
    return this.#peerMaps.push(Object.fromEntries(kept) as PeerMap) - 1;
  }

  /** The ids of the expected nodes that reported a status of any pin. */
  respondingPeers(): ReadonlySet<string> {
    return new Set(this.#peerMaps.flatMap((peerMap) => Object.keys(peerMap)));
  }

  /** Counts one more pin with this rule and this peer map, for the progress of the nodes, and gives the verdict on it. */
  count(rule: number, peerMap: number): PinVerdict {
    const judged = this.#judge(rule, peerMap);
    judged.pins += 1;
    return judged.verdict;
  }

  /** How far each expected node is with the pins that were counted. */
  progress(): ReadonlyMap<string, NodeProgress> {
    const progress = new Map([...this.#nodes.ids].map((id) => [id, { due: 0, done: 0 }]));
    for (const [pair, { pins, verdict }] of this.#judged) {
      const rule = this.#rules[Math.floor(pair / PAIR)] as ReplicationRule & { readonly direct: boolean };
      // What nobody has no node can fetch.
      if (rule.searched === true && verdict.pinned === 0) continue;
      const peerMap = this.#peerMaps[(pair % PAIR) - 1] ?? {};
      for (const id of rule.everywhere ? this.#nodes.ids : rule.allocations) {
        const node = progress.get(id);
        if (node === undefined) continue;
        node.due += pins;
        const info = peerMap[id];
        // The list of all pins says of direct pins that they are unexpectedly unpinned.
        if (info !== undefined && (isCopy(info) || (rule.direct && info.status === UNPINNED)))
          node.done += pins;
      }
    }
    return progress;
  }

  /** The verdict on pins with this rule and this peer map, both by number. Peer map -1: no peer reported anything. */
  verdict(rule: number, peerMap: number): PinVerdict {
    return this.#judge(rule, peerMap).verdict;
  }

  #judge(rule: number, peerMap: number): JudgedPair {
    const pair = rule * PAIR + peerMap + 1;
    const known = this.#judged.get(pair);
    if (known !== undefined) return known;
    const status = { cid: "", peerMap: peerMap === -1 ? {} : (this.#peerMaps[peerMap] as PeerMap) };
    const given = this.#rules[rule] as ReplicationRule & { readonly direct: boolean };
    // What the list says about a direct pin is checked one by one, also on a node that settles.
    const nodes = given.direct ? { ...this.#nodes, settling: new Set<string>() } : this.#nodes;
    const judged = { verdict: judgePin(given, status, nodes), pins: 0 };
    this.#judged.set(pair, judged);
    return judged;
  }
}

/** The verdict on a rule and a peer map, and how many pins have both. */
interface JudgedPair {
  readonly verdict: PinVerdict;
  pins: number;
}

/** One number for a rule and a peer map: rule * PAIR + peer map + 1. */
const PAIR = 2 ** 26;
