import type { Cluster } from "../../cluster/client.ts";
import { readPinLine, readWholePin } from "../../cluster/pin.ts";
import { type ExitName, messageOf, OperatorError } from "../../errors.ts";
import type { Clock } from "../../machine/clock.ts";
import type { Files } from "../../machine/file-writer.ts";
import { type AlarmChannels, type AlarmSent, commandFailure, raiseAlarm } from "../alerts.ts";
import { type HeartbeatDeps, withHeartbeat } from "../heartbeat.ts";
import { historyPath, parseSweepHistory, recordHistory } from "../history.ts";
import type { PinsetWorkspace } from "../workspace.ts";
import { sweepAlarm, sweepFacts, sweepPoint } from "./findings.ts";
import { joinListings } from "./join.ts";
import {
  isSettling,
  isUndecided,
  recordProgress,
  serialiseKnownNodes,
  type Stranger,
} from "./known-nodes.ts";
import { type NodeReport, type NodeSources, reportOf, surveyNodes } from "./nodes.ts";
import {
  type BelowMinimum,
  type ExpectedNodes,
  judgePin,
  readPinStatus,
  type ReplicationState,
  ruleOf,
  SweepTally,
} from "./replication.ts";

/** What a sweep needs. */
export interface SweepOptions {
  readonly cluster: Cluster;
  readonly clock: Clock;
  readonly files: Pick<Files, "readText" | "writeAtomic">;
  readonly channels: AlarmChannels;
  readonly heartbeat: HeartbeatDeps;
  readonly nodes: Omit<NodeSources, "cluster" | "files">;
  /** What the pinning API still searches for. Throws an OperatorError if the database does not answer. */
  readonly readSearched: () => Promise<SearchedPins>;
  /** Nodes that were taken out of service for good, by id or name. */
  readonly forget: readonly string[];
  /** REPL_MIN: the least number of copies for every pin. */
  readonly floor: number;
  /** Exit with `pending` if any pin is not healthy, apart from those that the pinning API still searches for. */
  readonly strict: boolean;
  readonly workspace: PinsetWorkspace;
  readonly limits?: Partial<SweepLimits>;
  readonly report: (line: string) => void;
}

/** What the pinning API still searches for: requests that are not pinned yet. */
interface SearchedPins {
  /** As the cluster spells them: a CIDv1 in base32, and the CIDv0 where there is one. */
  readonly cids: ReadonlySet<string>;
  /** True if there are more requests than were read. */
  readonly isCut: boolean;
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
  /**
   * `pending` if `strict` is set and any pin is neither healthy nor searched for; otherwise that of `failure`, if there is
   * one.
   */
  readonly exit: ExitName;
  readonly summary: string;
  readonly pins: number;
  readonly counts: Readonly<Record<ReplicationState, number>>;
  /** The number of copies on expected nodes -> the number of pins with that many copies. */
  readonly histogram: Readonly<Record<string, number>>;
  /** The pins that lack the most copies, at most 20. */
  readonly worst: readonly BelowMinimum[];
  /** Pins that have a copy on every node that can have one, while the pool has fewer nodes than REPL_MIN. */
  readonly lackingNodes: number;
  /** Pins of drills of the pool's masters with too few copies. They count nowhere else. */
  readonly drills: number;
  readonly nodes: readonly NodeReport[];
  /** Members that are not expected. Their copies do not count. */
  readonly strangers: readonly Stranger[];
  /** Why the registered names could not be read, so that the last known ones were used; null if they could. */
  readonly namesFault: string | null;
  /** Why the queue of the pinning API is not known or only in part, so that its pins count as all others; null if it is. */
  readonly queueFault: string | null;
  /** Candidates that were checked with a single request. */
  readonly rechecked: number;
  /** Pins that look wrong, but were not checked: a limit was reached, or the check failed. */
  readonly unconfirmed: number;
  readonly recovered: number;
  readonly recoverRefused: number;
  /** Lines in the alert log. */
  readonly alerts: number;
  /** What became of the alarm; null if nothing was wrong. */
  readonly alarm: AlarmSent | null;
  /** For the heartbeat, and so for `status`. */
  readonly facts: Readonly<Record<string, unknown>>;
  /** What went wrong after the alarm was raised: checks that failed, an alarm that ALERT_COMMAND did not take. */
  readonly failure: OperatorError | null;
}

const DEFAULT_LIMITS: SweepLimits = {
  candidates: 10_000,
  recheckMs: 120_000,
  recovers: 1_000,
  concurrency: 8,
};

/**
 * Compares the desired pinset with the status that the expected nodes report, raises an alarm for the pins below their
 * minimum, and makes the peers try again what failed. Throws an OperatorError (unavailable) if the cluster does
 * not answer or a list is not complete: a missing answer never counts as healthy. The caller holds the lock.
 */
export function sweep(options: SweepOptions): Promise<SweepResult> {
  return withHeartbeat(options.heartbeat, "sweep", () => run(options));
}

async function run(options: SweepOptions): Promise<SweepResult> {
  const { cluster, clock, files, forget, workspace, report } = options;
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const at = clock.now();
  const sources: NodeSources = { ...options.nodes, cluster, files };
  const survey = await surveyNodes(sources, { at, forget, save: true });
  const { masters, strangers, namesFault } = survey;
  const undecided = strangers.filter((stranger) => isUndecided(stranger, at));
  for (const { id, name, undecided: isOpen } of survey.newStrangers)
    report(
      isOpen === true
        ? `${name} (${id}) is a new member of the cluster. Whether it is a node of the pool is not known, because the database can't be reached. For six hours, what is allocated to it raises no alarm.`
        : `${name} (${id}) is a member of the cluster, but not expected. Its copies do not count. To keep it: fula-node node keep ${id}. To hide it: fula-node node forget ${id}.`,
    );
  for (const { id, name } of survey.dropped)
    report(`${name} (${id}) is not expected any more, because its name is not registered any more.`);

  const tally = new SweepTally(limits.candidates);
  const expected: ExpectedNodes = {
    ids: new Set(survey.nodes.map(({ id }) => id)),
    syncing: new Set(survey.nodes.filter(({ sync }) => sync === "syncing").map(({ id }) => id)),
    settling: new Set(survey.known.nodes.filter((node) => isSettling(node, masters, at)).map(({ id }) => id)),
    undecided: new Set(undecided.map(({ id }) => id)),
    floor: options.floor,
  };
  const { candidates: maxCandidates } = limits;
  const queue = await readQueue(options);
  const joined = await joinListings({
    cluster,
    workspace,
    nodes: expected,
    tally,
    searched: queue.cids,
    maxCandidates,
  });
  const known = recordProgress(survey.known, joined.progress, at);
  await files.writeAtomic(sources.path, serialiseKnownNodes(known), { mode: 0o644 });
  const stateById = new Map(survey.nodes.map((node) => [node.id, node]));
  const nodes = known.nodes.map((node): NodeReport => {
    const { state = "absent", freeBytes = null, announcedAt = null } = stateById.get(node.id) ?? {};
    const isSilent =
      (state === "up" || state === "no-metric") && tally.pins > 0 && !joined.responding.has(node.id);
    return { ...reportOf(node, masters, at), state: isSilent ? "silent" : state, freeBytes, announcedAt };
  });

  // A request may have come since then.
  const isAnyWithoutCopy = tally.candidates().some(({ pinned }) => pinned === 0);
  const later = isAnyWithoutCopy ? await readQueue(options) : queue;
  const searched = later.isKnown ? later.cids : queue.cids;
  const isDrill = sources.isPinOfDrill;
  const checks = await recheck({ cluster, clock, tally, expected, searched, limits, nodes, isDrill });
  const below = tally.candidates();
  const queueFault = queue.fault ?? later.fault;
  const own = masters[0];
  const found = {
    at: clock.now(),
    tally,
    nodes,
    strangers: strangers.length,
    undecided: undecided.length,
    namesFault,
    queueFault,
    own,
  };
  const alarm = sweepAlarm(found);
  const sent = alarm === null ? null : await raiseAlarm(options.channels, alarm);
  if (checks.bug !== null) throw checks.bug;
  const recovery = await recoverFailed(cluster, below, limits);
  const failure = commandFailure(sent) ?? checks.failure;
  const isPending = options.strict && tally.pins > tally.counts.healthy + tally.counts["searched-for"];
  const { summary, facts } = sweepFacts(found);
  const points = [sweepPoint(found)];
  await recordHistory(files, historyPath(options.heartbeat.path), { parse: parseSweepHistory, points });
  return {
    exit: isPending ? "pending" : (failure?.exit ?? "ok"),
    summary: failure === null ? summary : `${summary}; ${failure.what}`,
    pins: tally.pins,
    counts: tally.counts,
    histogram: tally.histogram(),
    worst: tally.worst(20),
    lackingNodes: tally.lackingNodes,
    drills: tally.drills,
    nodes,
    strangers,
    namesFault,
    queueFault,
    rechecked: checks.rechecked,
    unconfirmed: tally.alarming() - below.filter((pin) => pin.confirmed).length,
    ...recovery,
    alerts: alarm?.lines.length ?? 0,
    alarm: sent,
    facts,
    failure,
  };
}

/** The queue of the pinning API, as far as it is known. */
async function readQueue({ readSearched }: Pick<SweepOptions, "readSearched">): Promise<{
  readonly cids: ReadonlySet<string>;
  readonly isKnown: boolean;
  readonly fault: string | null;
}> {
  try {
    const { cids, isCut } = await readSearched();
    return { cids, isKnown: true, fault: isCut ? "it has too many requests to read them all" : null };
  } catch (thrown) {
    if (!(thrown instanceof OperatorError)) throw thrown;
    return { cids: new Set(), isKnown: false, fault: messageOf(thrown) };
  }
}

/** The result of the single requests. */
interface Recheck {
  readonly rechecked: number;
  /** If some requests failed. Their pins stay unconfirmed. */
  readonly failure: OperatorError | null;
  /** The first error that is not the cluster's; null if there was none. */
  readonly bug: unknown;
}

/**
 * Checks the candidates one by one, because the list of all pins is wrong about direct pins, and pins change
 * while the list is made. Pins that only absent nodes lack come last: there the request takes long and gives no
 * new information. A request that fails does not end it: the alarms for what was found must be raised first.
 */
async function recheck(options: {
  readonly cluster: Cluster;
  readonly clock: Clock;
  readonly tally: SweepTally;
  readonly expected: ExpectedNodes;
  readonly searched: ReadonlySet<string>;
  readonly limits: SweepLimits;
  readonly nodes: readonly NodeReport[];
  readonly isDrill: NodeSources["isPinOfDrill"];
}): Promise<Recheck> {
  const { clock, tally, limits } = options;
  const absent = new Set(options.nodes.filter((node) => node.state === "absent").map((node) => node.id));
  const canLearnMore = (pin: BelowMinimum): boolean =>
    pin.failedPeers.length > 0 ||
    pin.unknownPeers.length === 0 ||
    pin.unknownPeers.some((peer) => !absent.has(peer));
  const queue = tally.candidates().toSorted((a, b) => Number(canLearnMore(b)) - Number(canLearnMore(a)));
  const deadline = clock.monotonicMs() + limits.recheckMs;
  let rechecked = 0;
  const failed: unknown[] = [];
  await eachBounded(queue, limits.concurrency, async (pin) => {
    if (clock.monotonicMs() >= deadline) return;
    try {
      await recheckPin(options, pin);
      rechecked += 1;
    } catch (thrown) {
      failed.push(thrown);
    }
  });
  const bug = failed.find((thrown) => !(thrown instanceof OperatorError)) ?? null;
  return { rechecked, failure: failed.length === 0 ? null : checksFailed(failed, queue.length), bug };
}

function checksFailed(failed: readonly unknown[], all: number): OperatorError {
  return new OperatorError({
    exit: "unavailable",
    what: `${failed.length} of ${all} pins that look wrong could not be checked again: ${messageOf(failed[0])}`,
    why: "Their alerts are written, but the list of all pins can be wrong about a single pin.",
    remedy: "Check the log of ipfs-cluster, then run this again.",
    changed: "The alarm was raised.",
    cause: failed[0],
  });
}

async function recheckPin(
  {
    cluster,
    clock,
    expected,
    searched,
    tally,
    isDrill,
  }: {
    readonly cluster: Cluster;
    readonly clock: Clock;
    readonly isDrill: NodeSources["isPinOfDrill"];
    readonly expected: ExpectedNodes;
    readonly searched: ReadonlySet<string>;
    readonly tally: SweepTally;
  },
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
  const rule = ruleOf(readPinLine(JSON.stringify(desired)), searched);
  const verdict = judgePin(rule, status, expected);
  const whole = verdict.state === "healthy" ? null : readWholePin(desired);
  const isApart = whole !== null && (await isDrill?.(whole, clock.now())) === true;
  tally.remove(pin);
  if (isApart) tally.drills += 1;
  else tally.add(pin.cid, verdict, true);
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
