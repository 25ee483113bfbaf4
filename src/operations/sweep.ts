import type { Cluster } from "../cluster/client.ts";
import type { ExitName } from "../errors.ts";
import type { AlertLog } from "../host/alert-log.ts";
import type { Clock, Files } from "../host/host.ts";
import type { PinsetWorkspace } from "../host/pinset-workspace.ts";
import { type BelowMinimum, SweepTally } from "../model/replication-tally.ts";
import { alertLine, type ReplicationState } from "../model/replication.ts";
import { type HeartbeatHands, withHeartbeat } from "./snapshot-heartbeat.ts";
import { joinListings } from "./sweep-join.ts";
import { type NodeReport, surveyNodes } from "./sweep-nodes.ts";
import { recheck, recoverFailed } from "./sweep-recheck.ts";

/** What a sweep needs. */
export interface SweepOptions {
  readonly cluster: Cluster;
  readonly clock: Clock;
  readonly files: Pick<Files, "readText" | "writeAtomic">;
  readonly alerts: AlertLog;
  readonly heartbeat: HeartbeatHands;
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
export interface SweepLimits {
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
