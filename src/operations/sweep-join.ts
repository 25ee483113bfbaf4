import { OperatorError } from "../errors.ts";
import type { ClusterReader } from "../host/cluster.ts";
import { linesOf, readPinLine } from "../model/pin.ts";
import { PinTable } from "../model/pin-table.ts";
import { judgePin, readPinStatus, ruleOf } from "../model/replication.ts";
import type { PinStatus, ReplicationRule } from "../model/replication.ts";
import type { SweepTally } from "../model/replication-tally.ts";

/** By what a pin is judged. */
export interface SweepRules {
  readonly fallbackMin: number;
  /** Every known storage node. */
  readonly expected: ReadonlySet<string>;
  readonly seed: number;
}

/** Lists what is wished, then what the peers say, and judges every pin into the tally. Gives the peers that said anything. */
export async function joinListings(
  cluster: ClusterReader,
  rules: SweepRules,
  tally: SweepTally,
): Promise<ReadonlySet<string>> {
  const ruleBook = new RuleBook();
  const wished = new PinTable(rules.seed);
  await cluster.list("allocations", (block) => {
    for (const line of linesOf(block)) {
      const pin = readPinLine(line);
      wished.set(pin.cid, ruleBook.number(ruleOf(pin, rules.fallbackMin)));
    }
  });
  const heard = new Set<string>();
  const listing = await cluster.list("status", (block) => {
    for (const line of linesOf(block)) {
      const status = readStatusLine(line);
      const rule = wished.get(status.cid);
      if (rule === -1 || !wished.meet(status.cid)) continue;
      for (const peer in status.claims) heard.add(peer);
      tally.add(status.cid, judgePin(ruleBook.rule(rule), status, rules.expected), false);
    }
  });
  if (listing.saidNothing && wished.size > 0) throw nobodyAnswered(wished.size);
  if (tally.pins < wished.size) await addUnmentioned(cluster, rules, wished, ruleBook, tally);
  return heard;
}

/** Pins that no peer mentioned, if they are still wished: what was unpinned meanwhile is not in the list any more. */
async function addUnmentioned(
  cluster: ClusterReader,
  rules: SweepRules,
  wished: PinTable,
  ruleBook: RuleBook,
  tally: SweepTally,
): Promise<void> {
  await cluster.list("allocations", (block) => {
    for (const line of linesOf(block)) {
      const { cid } = readPinLine(line);
      const rule = wished.get(cid);
      if (rule === -1 || !wished.meet(cid)) continue;
      tally.add(cid, judgePin(ruleBook.rule(rule), { cid, claims: {} }, rules.expected), false);
    }
  });
}

/** Numbers the different rules that millions of pins have: some hundreds, or as many as there are sets of allocations. */
class RuleBook {
  readonly #rules: ReplicationRule[] = [];
  readonly #numbers = new Map<string, number>();

  number(rule: ReplicationRule): number {
    const key = rule.everywhere ? "everywhere" : `${rule.min} ${rule.allocations.join()}`;
    const known = this.#numbers.get(key);
    if (known !== undefined) return known;
    this.#numbers.set(key, this.#rules.length);
    return this.#rules.push(rule) - 1;
  }

  rule(number: number): ReplicationRule {
    const rule = this.#rules[number];
    if (rule === undefined) throw new Error(`no replication rule has the number ${number}`);
    return rule;
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
    what: `A line of the pins' status can't be read: ${line.slice(0, 80)}`,
    why: "A list with one unreadable line is not complete.",
    cause,
  });
}

function nobodyAnswered(pins: number): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `The cluster has ${pins} pins, but no peer could say anything of them.`,
    why: "That is how it answers when every peer fails, the one that was asked included (its kubo may be down).",
    remedy: "Check kubo on this machine and the cluster's log, then run this again.",
  });
}
