import { judgePin, type PeerClaim, type PinVerdict, type ReplicationRule } from "./replication.ts";

/** Numbers peers, and keeps one copy of each id. */
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

type Claims = Readonly<Record<string, PeerClaim>>;

/**
 * Millions of pins have few different rules, and peers say few different things of them: some hundreds,
 * or as many as there are sets of allocations. Each different one is kept once and has a number, and each
 * pair of the two is judged once.
 */
export class VerdictCache {
  readonly #nodes: ReadonlySet<string>;
  readonly #peers = new InternTable();
  readonly #ruleNumbers = new Map<string, number>();
  readonly #rules: ReplicationRule[] = [];
  readonly #claimNumbers = new Map<string, number>();
  readonly #claims: Claims[] = [];
  readonly #verdicts = new Map<number, PinVerdict>();

  /** `nodes`: every known storage node. */
  constructor(nodes: ReadonlySet<string>) {
    this.#nodes = nodes;
  }

  /** The number of a rule. */
  rule(rule: ReplicationRule): number {
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

  /** The number of what the peers say of a pin. */
  claims(claims: Claims): number {
    let key = "";
    for (const id in claims) {
      const { status, attempts } = claims[id] as PeerClaim;
      key += `${this.#peers.number(id)} ${status} ${Math.min(attempts, 2)},`;
    }
    const known = this.#claimNumbers.get(key);
    if (known !== undefined) return known;
    const kept = Object.entries(claims).map(([id, claim]) => [
      this.#peers.ids[this.#peers.number(id)] as string,
      claim,
    ]);
    this.#claimNumbers.set(key, this.#claims.length);
    return this.#claims.push(Object.fromEntries(kept) as Claims) - 1;
  }

  /** Every peer that said anything of any pin. */
  heard(): ReadonlySet<string> {
    return new Set(this.#claims.flatMap((claims) => Object.keys(claims)));
  }

  /** The verdict on pins with this rule of which this was said; -1: nothing. */
  verdict(rule: number, claims: number): PinVerdict {
    const pair = rule * 2 ** 26 + claims + 1;
    const known = this.#verdicts.get(pair);
    if (known !== undefined) return known;
    const status = { cid: "", claims: claims === -1 ? {} : (this.#claims[claims] as Claims) };
    const verdict = judgePin(this.#rules[rule] as ReplicationRule, status, this.#nodes);
    this.#verdicts.set(pair, verdict);
    return verdict;
  }
}
