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
  /** The file with all known storage nodes: `<base>/known-nodes.json`. */
  readonly nodesPath: string;
  /** Nodes that were taken out of service for good, by id or name. */
  readonly forget: readonly string[];
  /** REPL_MIN, for pins that do not have their own minimum. */
  readonly fallbackMin: number;
  /** Exit with `pending` if any pin is below its minimum. */
  readonly strict: boolean;
  readonly workspace: PinsetWorkspace;
  readonly limits?: Partial<SweepLimits>;
  readonly report: (line: string) => void;
}

/** Limits that keep a sweep short if very many pins are wrong. */
interface SweepLimits {
  /** Candidates (pins that look wrong) that are checked one by one; the others are only counted. Default 10,000. */
  readonly candidates: number;
  /** The total time for these single requests. Default 2 min. */
  readonly recheckMs: number;
  /** Recover calls. Default 1,000. */
  readonly recovers: number;
  /** Single requests at the same time. Default 8. */
  readonly concurrency: number;
}

/** The state of replication. */
export interface SweepResult {
  /** `pending` if `strict` is set and any pin is below its minimum. */
  readonly exit: ExitName;
  readonly summary: string;
  readonly pins: number;
  readonly counts: Readonly<Record<ReplicationState, number>>;
  /** The number of known copies -> the number of pins with that many copies. */
  readonly histogram: Readonly<Record<string, number>>;
  /** The pins that lack the most copies, at most 20. */
  readonly worst: readonly BelowMinimum[];
  readonly nodes: readonly NodeReport[];
  /** Candidates that were checked with a single request. */
  readonly rechecked: number;
  /** Pins that look wrong, but were not checked because a limit was reached. */
  readonly unconfirmed: number;
  readonly recovered: number;
  readonly recoverRefused: number;
  readonly alerts: number;
}

const DEFAULT_LIMITS: SweepLimits = {
  candidates: 10_000,
  recheckMs: 120_000,
  recovers: 1_000,
  concurrency: 8,
};

/**
 * Compares the desired pinset with the status that the peers report, writes an alert for every pin below its
 * minimum, and makes the peers try again what failed. Throws an OperatorError (unavailable) if the cluster does
 * not answer or a list is not complete: a missing answer never counts as healthy. The caller holds the lock.
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
  const tally = new SweepTally(limits.candidates);
  const expected = new Set(surveyed.map((node) => node.id));
  const rules = { fallbackMin: options.fallbackMin, expected };
  const { workspace } = options;
  const { candidates: maxCandidates } = limits;
  const respondingPeers = await joinListings({ cluster, workspace, rules, tally, maxCandidates });
  const nodes = surveyed.map((node) => markSilent(node, respondingPeers, tally.pins));
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

function markSilent(node: NodeReport, respondingPeers: ReadonlySet<string>, pins: number): NodeReport {
  const reachable = node.state === "up" || node.state === "no-metric";
  return reachable && pins > 0 && !respondingPeers.has(node.id) ? { ...node, state: "silent" } : node;
}

function summarise(tally: SweepTally, nodes: readonly NodeReport[]): string {
  const { counts } = tally;
  const parts = [`${tally.pins} pins`, `${counts.healthy} healthy`];
  for (const state of ["in-progress", "failed", "unknown", "under-replicated"] as const) {
    if (counts[state] > 0) parts.push(`${counts[state]} ${state}`);
  }
  const notUp = nodes.filter((node) => node.state !== "up");
  if (notUp.length > 0) parts.push(`nodes: ${notUp.map((node) => `${node.name} ${node.state}`).join(", ")}`);
  return parts.join("; ");
}

/** The result of the single requests. */
interface Recheck {
  /** The pins that need an alert: confirmed ones, and those that were not checked before the deadline. */
  readonly below: readonly BelowMinimum[];
  readonly rechecked: number;
}

/**
 * Checks the candidates one by one, because the list of all pins is wrong about direct pins, and pins change
 * while the list is made. Pins that only absent nodes lack come last: there the request takes long and gives no
 * new information.
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
  const canLearnMore = (pin: BelowMinimum): boolean =>
    pin.failedPeers.length > 0 ||
    pin.unknownPeers.length === 0 ||
    pin.unknownPeers.some((peer) => !absent.has(peer));
  const queue = tally.candidates().toSorted((a, b) => Number(canLearnMore(b)) - Number(canLearnMore(a)));
  const deadline = clock.now().getTime() + limits.recheckMs;
  let rechecked = 0;
  await eachBounded(queue, limits.concurrency, async (pin) => {
    if (clock.now().getTime() >= deadline) return;
    await recheckPin(cluster, rules, tally, pin);
    rechecked += 1;
  });
  return { below: tally.candidates(), rechecked };
}

async function recheckPin(
  cluster: Cluster,
  rules: SweepRules,
  tally: SweepTally,
  pin: BelowMinimum,
): Promise<void> {
  const desired = await cluster.allocation(pin.cid);
  if (desired === null) {
    tally.remove(pin);
    return;
  }
  const status = readPinStatus(await cluster.status(pin.cid));
  if (status === null) {
    throw new OperatorError({
      exit: "unavailable",
      what: `The answer of the cluster to the status of ${pin.cid} cannot be read.`,
    });
  }
  const rule = ruleOf(readPinLine(JSON.stringify(desired)), rules.fallbackMin);
  tally.remove(pin);
  tally.add(pin.cid, judgePin(rule, status, rules.expected), true);
}

/** Calls recover for pins on which a peer failed, up to the limit. The next sweep does the others. */
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

/** Processes the items, at most `limit` at the same time. The first failure ends it. */
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
