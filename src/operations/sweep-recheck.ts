import { OperatorError } from "../errors.ts";
import type { Cluster } from "../cluster/client.ts";
import type { Clock } from "../host/host.ts";
import { readPinLine } from "../cluster/pin.ts";
import { judgePin, readPinStatus, ruleOf } from "../model/replication.ts";
import type { BelowMinimum, SweepTally } from "../model/replication-tally.ts";
import type { SweepRules } from "./sweep-join.ts";
import type { SweepLimits } from "./sweep.ts";
import type { NodeReport } from "./sweep-nodes.ts";

/** What asking singly came to. */
export interface Recheck {
  /** The pins to alarm about: confirmed ones, and those for which the time did not suffice. */
  readonly below: readonly BelowMinimum[];
  readonly rechecked: number;
}

/**
 * Asks for suspicious pins one by one: the bulk list is wrong about direct pins, and things move
 * while it is made. First those that a peer that is up spoke or ought to have spoken of; for those that only
 * absent nodes lack an answer takes long and says nothing new, so they come last.
 */
export async function recheck(options: {
  readonly cluster: Cluster;
  readonly clock: Clock;
  readonly tally: SweepTally;
  readonly rules: SweepRules;
  readonly limits: SweepLimits;
  readonly nodes: readonly NodeReport[];
}): Promise<Recheck> {
  const { cluster, clock, tally, rules, limits } = options;
  const absent = new Set(options.nodes.filter((node) => node.state === "absent").map((node) => node.id));
  const isHopeful = (pin: BelowMinimum): boolean =>
    pin.failedPeers.length > 0 ||
    pin.unknownPeers.length === 0 ||
    pin.unknownPeers.some((peer) => !absent.has(peer));
  const queue = tally.suspects().toSorted((a, b) => Number(isHopeful(b)) - Number(isHopeful(a)));
  const deadline = clock.now().getTime() + limits.recheckMs;
  let rechecked = 0;
  await eachBounded(queue, limits.concurrency, async (pin) => {
    if (clock.now().getTime() >= deadline) return;
    await askSingly(cluster, rules, tally, pin);
    rechecked += 1;
  });
  return { below: tally.suspects(), rechecked };
}

async function askSingly(
  cluster: Cluster,
  rules: SweepRules,
  tally: SweepTally,
  pin: BelowMinimum,
): Promise<void> {
  const wished = await cluster.allocation(pin.cid);
  if (wished === null) {
    tally.withdraw(pin);
    return;
  }
  const status = readPinStatus(await cluster.status(pin.cid));
  if (status === null) {
    throw new OperatorError({
      exit: "unavailable",
      what: `The cluster's status of ${pin.cid} can't be read.`,
    });
  }
  const rule = ruleOf(readPinLine(JSON.stringify(wished)), rules.fallbackMin);
  tally.withdraw(pin);
  tally.add(pin.cid, judgePin(rule, status, rules.expected), true);
}

/** Calls recover for pins that a peer failed on, as far as the limit goes; the next sweep takes the rest. */
export async function recoverFailed(
  cluster: Cluster,
  below: readonly BelowMinimum[],
  limits: SweepLimits,
): Promise<{ readonly recovered: number; readonly recoverRefused: number }> {
  const mendable = below.filter((pin) => pin.failedPeers.length > 0).slice(0, limits.recovers);
  let recovered = 0;
  let recoverRefused = 0;
  await eachBounded(mendable, limits.concurrency, async (pin) => {
    try {
      await cluster.recover(pin.cid);
      recovered += 1;
    } catch (thrown) {
      if (!(thrown instanceof OperatorError)) throw thrown;
      recoverRefused += 1;
    }
  });
  return { recovered, recoverRefused };
}

/** Works through the items with so many under way at once; the first failure ends it. */
async function eachBounded<Item>(
  items: readonly Item[],
  limit: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const queue = items.values();
  const worker = async (): Promise<void> => {
    for (const item of queue) await work(item);
  };
  await Promise.all(Array.from({ length: Math.max(1, limit) }, worker));
}
