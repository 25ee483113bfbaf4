import type { Cluster } from "../../cluster/client.ts";
import { readPinLine } from "../../cluster/pin.ts";
import { type ExitName, OperatorError } from "../../errors.ts";
import type { AlertLog } from "../alerts.ts";
import { type HeartbeatDeps, withHeartbeat } from "../heartbeat.ts";
import type { PinsetWorkspace } from "../workspace.ts";
import { joinListings, type SweepRules } from "./join.ts";
import { type NodeReport, surveyNodes } from "./nodes.ts";
import {
  alertLine,
  type BelowMinimum,
  judgePin,
  readPinStatus,
  type ReplicationState,
  ruleOf,
  SweepTally,
} from "./replication.ts";
import type { Clock } from "../../machine/clock.ts";
import type { Files } from "../../machine/file-writer.ts";

/** What a sweep needs. */
export interface SweepOptions {
  readonly cluster: Cluster;
  readonly clock: Clock;
  readonly files: Pick<Files, "readText" | "writeAtomic">;
  readonly alerts: AlertLog;
  readonly heartbeat: HeartbeatDeps;
  /** Where the storage nodes are remembered: `<base>/known-nodes.json`. */
  readonly nodesPath: string;
  /** Nodes that were taken out of service for good, by id or name. */
  readonly forget: readonly string[];
  /** REPL_MIN: for pins that have no minimum of their own. */
  readonly fallbackMin: number;
  /** Exit `pending` while anything is below its minimum. */
  readonly strict: boolean;
  readonly workspace: PinsetWorkspace;
  readonly limits?: Partial<SweepLimits>;
  readonly report: (line: string) => void;
}

/** What keeps a sweep bounded when much is wrong at once. */
interface SweepLimits {
  /** Suspicious pins that are looked at one by one; the rest is only counted. Default 10,000. */
  readonly suspects: number;
  /** How long the single questions may take in all. Default 2 min. */
  readonly recheckMs: number;
  /** Recover calls. Default 1,000. */
  readonly recovers: number;
  /** Single requests under way at once. Default 8. */
  readonly concurrency: number;
}

/** How replication stands. */
export interface SweepResult {
  /** `pending` with `strict` while anything is below its minimum. */
  readonly exit: ExitName;
  readonly summary: string;
  readonly pins: number;
  readonly counts: Readonly<Record<ReplicationState, number>>;
  /** Copies that are known of -> pins that have so many. */
  readonly histogram: Readonly<Record<string, number>>;
  /** The pins that lack most, at most 20. */
  readonly worst: readonly BelowMinimum[];
  readonly nodes: readonly NodeReport[];
  /** Suspicious pins that were asked singly, and those for which there was no time or room. */
  readonly rechecked: number;
  readonly unconfirmed: number;
  readonly recovered: number;
  readonly recoverRefused: number;
  readonly alerts: number;
}

const DEFAULT_LIMITS: SweepLimits = { suspects: 10_000, recheckMs: 120_000, recovers: 1_000, concurrency: 8 };

/**
 * Compares what is wished with what the peers say, alarms about every pin below its minimum and has
 * the peers try again what failed. Throws an OperatorError (unavailable) where the cluster could not
 * be asked or a list was not complete: no answer is never "all is well". The caller holds the lock.
 */
export function sweep(options: SweepOptions): Promise<SweepResult> {
  return withHeartbeat(options.heartbeat, "sweep", () => run(options));
}

async function run(options: SweepOptions): Promise<SweepResult> {
  const { cluster, clock } = options;
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const surveyed = await surveyNodes({
    cluster,
    files: options.files,
    path: options.nodesPath,
    at: clock.now(),
    forget: options.forget,
  });
  const tally = new SweepTally(limits.suspects);
  const expected = new Set(surveyed.map((node) => node.id));
  const rules = { fallbackMin: options.fallbackMin, expected };
  const { workspace } = options;
  const heard = await joinListings({ cluster, workspace, rules, tally, suspects: limits.suspects });
  const nodes = surveyed.map((node) => markSilent(node, heard, tally.pins));
  const confirmed = await recheck({ cluster, clock, tally, rules, limits, nodes });
  const recovery = await recoverFailed(cluster, confirmed.below, limits);
  const alerts = await raiseAlerts(options, tally, confirmed.below);
  const below = tally.pins - tally.counts.healthy;
  return {
    exit: options.strict && below > 0 ? "pending" : "ok",
    summary: summarise(tally, nodes),
    pins: tally.pins,
    counts: tally.counts,
    histogram: tally.histogram(),
    worst: tally.worst(20),
    nodes,
    rechecked: confirmed.rechecked,
    unconfirmed: tally.alarming() - confirmed.below.filter((pin) => pin.confirmed).length,
    ...recovery,
    alerts,
  };
}

async function raiseAlerts(
  options: SweepOptions,
  tally: SweepTally,
  below: readonly BelowMinimum[],
): Promise<number> {
  const at = options.clock.now();
  const lines = below.map((pin) => alertLine(at, pin.cid, pin));
  const more = tally.alarming() - lines.length;
  if (more > 0)
    lines.push(`${at.toISOString().replace(/\.\d{3}Z$/, "Z")} under-replicated-more pins=${more}`);
  await options.alerts.append(lines);
  return lines.length;
}

function markSilent(node: NodeReport, heard: ReadonlySet<string>, pins: number): NodeReport {
  const reachable = node.state === "up" || node.state === "no-metric";
  return reachable && pins > 0 && !heard.has(node.id) ? { ...node, state: "silent" } : node;
}

function summarise(tally: SweepTally, nodes: readonly NodeReport[]): string {
  const { counts } = tally;
  const parts = [`${tally.pins} pins`, `${counts.healthy} healthy`];
  for (const state of ["in-progress", "failed", "unknown", "under-replicated"] as const) {
    if (counts[state] > 0) parts.push(`${counts[state]} ${state}`);
  }
  const troubled = nodes.filter((node) => node.state !== "up");
  if (troubled.length > 0)
    parts.push(`nodes: ${troubled.map((node) => `${node.name} ${node.state}`).join(", ")}`);
  return parts.join("; ");
}

/** What asking singly came to. */
interface Recheck {
  /** The pins to alarm about: confirmed ones, and those for which the time did not suffice. */
  readonly below: readonly BelowMinimum[];
  readonly rechecked: number;
}

/**
 * Asks for suspicious pins one by one: the bulk list is wrong about direct pins, and things move
 * while it is made. First those that a peer that is up spoke or ought to have spoken of; for those that only
 * absent nodes lack an answer takes long and says nothing new, so they come last.
 */
async function recheck(options: {
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
async function recoverFailed(
  cluster: Cluster,
  below: readonly BelowMinimum[],
  limits: SweepLimits,
): Promise<{ readonly recovered: number; readonly recoverRefused: number }> {
  const recoverable = below.filter((pin) => pin.failedPeers.length > 0).slice(0, limits.recovers);
  let recovered = 0;
  let recoverRefused = 0;
  await eachBounded(recoverable, limits.concurrency, async (pin) => {
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
