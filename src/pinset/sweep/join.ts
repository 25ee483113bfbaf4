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

/** By what a pin is judged. */
export interface SweepRules {
  readonly fallbackMin: number;
  /** Every known storage node. */
  readonly expected: ReadonlySet<string>;
}

/** What joining needs. */
export interface JoinOptions {
  readonly cluster: ClusterReader;
  readonly workspace: PinsetWorkspace;
  readonly rules: SweepRules;
  readonly tally: SweepTally;
  /** Suspicious pins that are named; the others are only counted. */
  readonly suspects: number;
}

/** Lists what is wished, then what the peers say, and judges every pin into the tally. Gives the peers that said anything. */
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
  const books = new VerdictCache(rules.expected);
  const wished = open();
  await cluster.list("allocations", (block) => {
    for (const line of linesOf(block)) {
      const pin = readPinLine(line);
      wished.add(pin.cid, books.rule(ruleOf(pin, rules.fallbackMin)));
    }
  });
  const said = open();
  const listing = await cluster.list("status", (block) => {
    for (const line of linesOf(block)) {
      const status = readStatusLine(line);
      said.add(status.cid, books.claims(status.claims));
    }
  });
  if (listing.saidNothing && wished.count > 0) throw nobodyAnswered(wished.count);

  const unmentioned = open();
  const suspects = new Suspects(options.suspects);
  workspace.joinNumberedCids(wished, said, (rule, claims, key) => {
    const verdict = books.verdict(rule, claims);
    if (claims === -1) unmentioned.addKey(key(), rule);
    else tally.count(verdict);
    if (isAlarming(verdict.state)) suspects.add(key, verdict, claims !== -1);
  });
  if (unmentioned.count > 0 || suspects.size > 0)
    await lookAgain(options, { books, unmentioned, suspects, open });
  return books.heard();
}

/**
 * Lists what is wished once more: it gives the suspicious pins their names, and of those that no peer
 * mentioned it tells which were unpinned meanwhile.
 */
async function lookAgain(
  { cluster, workspace, tally }: JoinOptions,
  seen: {
    readonly books: VerdictCache;
    readonly unmentioned: NumberedCids;
    readonly suspects: Suspects;
    readonly open: () => NumberedCids;
  },
): Promise<void> {
  const { books, unmentioned, suspects } = seen;
  const still = seen.open();
  await cluster.list("allocations", (block) => {
    for (const line of linesOf(block)) {
      const { cid } = readPinLine(line);
      const key = workspace.cidKey(cid);
      if (unmentioned.count > 0) still.addKey(key, 0);
      const verdict = suspects.take(key);
      if (verdict !== null) tally.keep(cid, verdict, false);
    }
  });
  workspace.joinNumberedCids(unmentioned, still, (rule, there) => {
    if (there !== -1) tally.count(books.verdict(rule, -1));
  });
  for (const verdict of suspects.goneAfterCount()) tally.uncount(verdict);
}

/** Suspicious pins whose CIDs are not known yet, by key, as many as may be named. */
class Suspects {
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

  /** The verdict on the pin with this key, once. */
  take(key: string): PinVerdict | null {
    const found = this.#verdicts.get(key);
    if (found === undefined) return null;
    this.#verdicts.delete(key);
    return found.verdict;
  }

  /** The verdicts that were counted on pins which nobody wishes any more. */
  goneAfterCount(): readonly PinVerdict[] {
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
