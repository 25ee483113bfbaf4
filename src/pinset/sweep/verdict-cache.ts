import { judgePin, type PeerPinInfo, type PinVerdict, type ReplicationRule } from "./replication.ts";

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
  readonly #nodes: ReadonlySet<string>;
  readonly #peers = new InternTable();
  readonly #ruleNumbers = new Map<string, number>();
  readonly #rules: ReplicationRule[] = [];
  readonly #peerMapNumbers = new Map<string, number>();
  readonly #peerMaps: PeerMap[] = [];
  readonly #verdicts = new Map<number, PinVerdict>();

  /** `nodes`: the ids of all known storage nodes. */
  constructor(nodes: ReadonlySet<string>) {
    this.#nodes = nodes;
  }

  /** Stores a rule if it is new, and gives its number. */
  internRule(rule: ReplicationRule): number {
    const allocations = rule.allocations.map((id) => this.#peers.number(id));
    const key = rule.everywhere ? "everywhere" : `${rule.min} ${allocations.join()}`;
    const known = this.#ruleNumbers.get(key);
    if (known !== undefined) return known;
    this.#ruleNumbers.set(key, this.#rules.length);
    return (
      this.#rules.push({
        ...rule,
        allocations: allocations.map((number) => this.#peers.ids[number] as string),
      }) - 1
    );
  }

  /** Stores the status that the peers report for a pin if it is new, and gives its number. */
  internPeerMap(peerMap: PeerMap): number {
    let key = "";
    for (const id in peerMap) {
      const { status, attempts } = peerMap[id] as PeerPinInfo;
      key += `${this.#peers.number(id)} ${status} ${Math.min(attempts, 2)},`;
    }
    const known = this.#peerMapNumbers.get(key);
    if (known !== undefined) return known;
    const kept = Object.entries(peerMap).map(([id, info]) => [
      this.#peers.ids[this.#peers.number(id)] as string,
      info,
    ]);
    this.#peerMapNumbers.set(key, this.#peerMaps.length);
    return this.#peerMaps.push(Object.fromEntries(kept) as PeerMap) - 1;
  }

  /** The ids of all peers that reported a status of any pin. */
  respondingPeers(): ReadonlySet<string> {
    return new Set(this.#peerMaps.flatMap((peerMap) => Object.keys(peerMap)));
  }

  /** The verdict on pins with this rule and this peer map, both by number. Peer map -1: no peer reported anything. */
  verdict(rule: number, peerMap: number): PinVerdict {
    const pair = rule * 2 ** 26 + peerMap + 1;
    const known = this.#verdicts.get(pair);
    if (known !== undefined) return known;
    const status = { cid: "", peerMap: peerMap === -1 ? {} : (this.#peerMaps[peerMap] as PeerMap) };
    const verdict = judgePin(this.#rules[rule] as ReplicationRule, status, this.#nodes);
    this.#verdicts.set(pair, verdict);
    return verdict;
  }
}
