import type { Cluster } from "../cluster/client.ts";
import { messageOf, OperatorError } from "../errors.ts";
import { databaseOf } from "../join/installed-node.ts";
import { nodeSourcesOf } from "../join/node-sources.ts";
import type { JoinDeps } from "../join/join-run.ts";
import type { Clock } from "../machine/clock.ts";
import type { Lock, LockHolder } from "../machine/lock.ts";
import { readSearched } from "../pinning/searched.ts";
import { refusalOf } from "../pinset/alert-command.ts";
import type { AlarmChannels } from "../pinset/alerts.ts";
import { COMMAND_FAILED } from "../pinset/drill-record.ts";
import { sweep, type SweepResult } from "../pinset/sweep/sweep.ts";
import type { PinsetWorkspace } from "../pinset/workspace.ts";
import { lockNames } from "../settings/layout.ts";
import { countOf, duration, grouped, visibleJson } from "../units.ts";
import {
  type ContentDeps,
  copiesOf,
  type DrillContent,
  makeContent,
  openDrillCluster,
  pinContent,
  removeContents,
  stoppable,
  until,
} from "./drill-content.ts";
import { DrillFinding, outcomeOf } from "./drill-finding.ts";
import type { Drill, DrillContext, DrillOutcome } from "./drill.ts";
import { keepClear } from "./keep-clear.ts";
import { askedPin, onlyPin, withProgress } from "./one-pin.ts";

/** What the drill needs. */
export interface SweepDrillDeps extends ContentDeps, Pick<JoinDeps, "pid"> {
  readonly host: JoinDeps["host"];
  openWorkspace(): Promise<PinsetWorkspace>;
  openChannels(given: {
    readonly log: string;
    readonly command: string | undefined;
    readonly pool: string;
  }): Promise<AlarmChannels>;
  takeLock(name: string, holder: LockHolder): Promise<Lock>;
  /** True: ALERT_COMMAND is run too, with an alarm that says that it is a drill. */
  readonly rehearsesAlarm?: boolean;
}

/** The drill's pin lives so long at most, whatever becomes of the drill. */
const LIFE_MS = 15 * 60_000;
/** So long the nodes may take to store the drill's few bytes. */
const CLUSTER_MS = 60_000;
/** A sweep of cron that runs now is waited for. */
const LOCK_MS = 60_000;
const SEEN_MS = 20_000;
/** One copy is missing only where two are asked for. */
const LEAST_COPIES = 2;
const LOOK = "run fula-node status, and repair what does not work; then run the drill again";
const REPORT = "report it with the output of fula-node drill D7 --json";

/** Creates the drill; `work` is what a test replaces to see it fail. */
export function createSweepDrill(work: typeof sweep = sweep): Drill<SweepDrillDeps> {
  return {
    id: "D7",
    title: "sweep",
    proves:
      "No pin of the pool has too few copies, and a pin that has is found, raises the alarm, and is healthy again with enough copies.",
    isScheduled: true,
    deadlineMs: 240_000,

    async run(deps, context) {
      const { stop, master, report } = context;
      const evidence: Record<string, string> = {};
      const cluster = openDrillCluster(deps, master, stop);
      const given: Given = {
        deps,
        context,
        work,
        evidence,
        cluster: withProgress(cluster, deps.host.clock, report),
        clock: stoppable(deps.host.clock, stop),
      };
      try {
        return await outcomeOf(evidence, () => prove(given));
      } finally {
        cluster.close();
      }
    },

    cleanUp: (deps, given) => removeContents(deps, given),
  };
}

/** The drill of `sweep` and of its alarm. */
export const sweepDrill = createSweepDrill();

interface Given {
  readonly deps: SweepDrillDeps;
  readonly context: DrillContext;
  readonly work: typeof sweep;
  readonly evidence: Record<string, string>;
  readonly cluster: Cluster;
  readonly clock: Clock;
}

async function prove(given: Given): Promise<Pick<DrillOutcome, "state" | "summary">> {
  const { deps, context, cluster, evidence } = given;
  const { values } = context.master;
  const content = await makeContent(deps, context.master, "sweep");
  const floor = Number(values("REPL_MIN"));
  const pool = await runSweep(given, content, { cluster, floor, command: undefined, setsApart: true });
  evidence["the pool"] = pool.summary;
  requireClean(pool, floor);
  const clean = `the pool is clean (${countOf(pool.pins, "pin")})`;

  const wanted = Math.max(floor, LEAST_COPIES);
  const { nodes } = pool;
  if (nodes.length < wanted) {
    const lacking = `the pool has ${countOf(nodes.length, "node")}, and without ${wanted} no pin can have ${wanted} copies`;
    return {
      state: "skipped",
      summary: `${clean}; the alarm was not rehearsed: ${lacking}`,
    };
  }
  const { id: own } = await cluster.identity();
  const others = nodes.filter(({ id, state }) => state === "up" && id !== own).map(({ id }) => id);
  const peers = [own, ...others];
  if (peers.length < wanted)
    throw new DrillFinding(
      `${countOf(peers.length, "node")} of ${nodes.length} can be reached, and the drill needs ${wanted}`,
      { todo: LOOK },
    );
  await requireCommand(given);

  const isAlone = (values("MASTER_CLUSTER_PEERIDS") ?? "") === "";
  await keepClear(given.clock, isAlone ? "snapshot" : "sweep", context.report);
  const lock = await takeSweepLock(given);
  try {
    const { seenMs, backMs, command } = await rehearse(given, content, { peers, wanted });
    const isUnset = deps.rehearsesAlarm === true && values("ALERT_COMMAND") === undefined;
    const told =
      command === "done"
        ? " and ALERT_COMMAND was run"
        : isUnset
          ? " (no ALERT_COMMAND is set, so nobody is called)"
          : "";
    return {
      state: "passed",
      summary: `${clean}; a pin with 1 of ${wanted} copies was found in ${duration(seenMs)}, the alarm was written${told}, and ${duration(backMs)} later it had ${wanted}`,
    };
  } finally {
    await lock.release();
  }
}

/** The drill's pin alone gets too few copies, is looked for, and gets enough of them. */
async function rehearse(
  given: Given,
  content: DrillContent,
  { peers, wanted }: { readonly peers: readonly string[]; readonly wanted: number },
): Promise<{ readonly seenMs: number; readonly backMs: number; readonly command: string }> {
  const { deps, context, cluster, clock, evidence } = given;
  const { master, report } = context;
  const { cid, directory } = content;
  report(`pinning the drill's content on one node; ${wanted} copies are needed`);
  const pin = (count: number, on: readonly string[]) =>
    pinContent(deps, { master, cluster }, content, {
      copies: { min: count, max: count, peers: on },
      lifeMs: LIFE_MS,
    });
  await pin(1, peers.slice(0, 1));
  evidence["the drill's pin"] = `${content.name}, ${cid}`;
  await untilCopies(given, cid, { count: 1, peers });

  const command = deps.rehearsesAlarm === true ? master.values("ALERT_COMMAND") : undefined;
  const startMs = clock.monotonicMs();
  const found = await runSweep(given, content, { cluster: onlyPin(cluster, cid), floor: wanted, command });
  const seenMs = clock.monotonicMs() - startMs;
  evidence["with one copy"] = found.summary;
  await requireFound(given, { directory, cid, wanted, found });

  report(`giving it ${wanted} copies`);
  const raisedMs = clock.monotonicMs();
  await pin(wanted, peers);
  await untilCopies(given, cid, { count: wanted, peers });
  const backMs = clock.monotonicMs() - raisedMs;
  let last: SweepResult | null = null;
  const isHealthy = async (): Promise<boolean> => {
    last = await runSweep(given, content, {
      cluster: askedPin(cluster, cid),
      floor: wanted,
      command: undefined,
    });
    evidence[`with ${wanted} copies`] = last.summary;
    return last.alarm === null && last.counts.healthy === 1;
  };
  if (!(await until(clock, SEEN_MS, isHealthy)))
    throw new DrillFinding(
      `the drill's pin has ${wanted} copies again, but the sweep says: ${evidence[`with ${wanted} copies`]}`,
      { todo: REPORT },
    );
  return { seenMs, backMs, command: found.alarm?.command ?? "none" };
}

/**
 * A sweep with files of the drill's own: the operator's heartbeat, history, alarms and list of nodes do not know of it, and
 * no node is made to try again.
 */
async function runSweep(
  { deps, context, work }: Given,
  { directory }: DrillContent,
  over: {
    readonly cluster: Cluster;
    readonly floor: number;
    readonly command: string | undefined;
    /** True: pins of drills are set apart, as the operator's sweep does. This drill's own must be found. */
    readonly setsApart?: boolean;
  },
): Promise<SweepResult> {
  const { host } = deps;
  const { files, clock } = host;
  const { master } = context;
  const path = `${directory}/known-nodes.json`;
  const known = await files.readText(master.layout.knownNodes);
  if (known !== null) await files.writeAtomic(path, known, { mode: 0o600 });
  const log = alertLogIn(directory);
  const sources = nodeSourcesOf(deps, master);
  const pool = master.values("CLUSTERNAME") ?? "";
  const channels = await deps.openChannels({ log, command: over.command, pool });
  return work({
    cluster: over.cluster,
    clock,
    files,
    channels: { ...channels, command: channels.command && marked(channels.command) },
    heartbeat: { files, clock, path: `${directory}/sweep.json` },
    nodes: over.setsApart === true ? { ...sources, path } : { ...sources, path, isPinOfDrill: undefined },
    readSearched: () => {
      const target = databaseOf(master);
      return readSearched({ query: (sql, given) => host.postgres.query(target, sql, given) });
    },
    forget: [],
    floor: over.floor,
    strict: false,
    workspace: await deps.openWorkspace(),
    limits: { recovers: 0 },
    // A stranger, or a node that went away, is for the operator's own sweep to say.
    report: () => {},
  });
}

/** Nobody may take the alarm of a drill for a real one, and no program: its kind is another. */
function marked(command: NonNullable<AlarmChannels["command"]>): NonNullable<AlarmChannels["command"]> {
  return {
    path: command.path,
    run: (input) => {
      // Its log is the drill's own, and gone when somebody reads this.
      const { log: _log, ...alarm } = JSON.parse(input) as { readonly summary: string; readonly log: string };
      const summary = `This is a drill of fula-node: there is nothing to do. ${alarm.summary}`;
      return command.run(`${visibleJson({ ...alarm, kind: "drill", summary })}\n`);
    },
  };
}

function alertLogIn(directory: string): string {
  return `${directory}/alerts.log`;
}

/** What a sweep would raise an alarm for fails the drill. */
function requireClean(pool: SweepResult, floor: number): void {
  const { alarm, counts, pins, lackingNodes, nodes, failure } = pool;
  if (failure !== null)
    throw new DrillFinding(`the sweep was not complete: ${messageOf(failure)}`, { todo: LOOK });
  if (alarm === null) return;
  const below = counts.failed + counts.unknown + counts["under-replicated"];
  if (below === 0)
    throw new DrillFinding(`a node makes no progress: ${pool.summary}`, { todo: "fula-node node list" });
  const todo =
    lackingNodes === below
      ? `add storage nodes, or lower REPL_MIN (${floor}): the pool has ${countOf(nodes.length, "node")}`
      : "see the pins and their nodes: fula-node sweep --json";
  throw new DrillFinding(
    `${grouped(below)} of ${countOf(pins, "pin")} have too few copies: ${pool.summary}`,
    { todo: todo },
  );
}

/** ALERT_COMMAND is looked at also when it is not run. */
async function requireCommand({ deps, context, evidence }: Given): Promise<void> {
  const path = context.master.values("ALERT_COMMAND");
  evidence["ALERT_COMMAND"] = path ?? "not set";
  const fault = path === undefined ? null : await refusalOf(deps.host.files, path);
  if (fault !== null)
    throw new DrillFinding(`ALERT_COMMAND can't be run: ${fault}`, { todo: "repair ALERT_COMMAND" });
}

async function requireFound(
  { deps }: Given,
  seen: {
    readonly directory: string;
    readonly cid: string;
    readonly wanted: number;
    readonly found: SweepResult;
  },
): Promise<void> {
  const { directory, cid, wanted, found } = seen;
  const pin = found.worst.find((one) => one.cid === cid);
  if (pin === undefined || !pin.confirmed || pin.pinned !== 1)
    throw new DrillFinding(
      `the sweep did not see that the drill's pin has 1 of ${wanted} copies: ${found.summary}`,
      { todo: REPORT },
    );
  const log = (await deps.host.files.readText(alertLogIn(directory))) ?? "";
  if (!log.includes(`under-replicated cid=${cid} pinned=1 min=${wanted}`))
    throw new DrillFinding("the sweep saw that the drill's pin has too few copies, but wrote no alarm", {
      todo: REPORT,
    });
  const { alarm } = found;
  if (alarm?.command === "failed")
    throw new DrillFinding(`the alarm was written, but ${COMMAND_FAILED}: ${alarm.why}`, {
      todo: "repair ALERT_COMMAND",
    });
  if (found.failure !== null)
    throw new DrillFinding(`the sweep was not complete: ${messageOf(found.failure)}`, { todo: LOOK });
}

async function untilCopies(
  { cluster, clock }: Given,
  cid: string,
  { count, peers }: { readonly count: number; readonly peers: readonly string[] },
): Promise<void> {
  let copies = 0;
  const isStored = async (): Promise<boolean> => {
    const holders = await copiesOf(cluster, cid);
    copies = peers.filter((id) => holders.has(id)).length;
    return copies >= count;
  };
  if (await until(clock, CLUSTER_MS, isStored)) return;
  throw new DrillFinding(
    `the drill's pin has ${copies} of ${count} copies ${duration(CLUSTER_MS)} after it was pinned`,
    { todo: LOOK },
  );
}

/** While the drill's pin has too few copies, no sweep of this master may raise a real alarm for it. */
async function takeSweepLock({ deps, context, clock }: Given): Promise<Lock> {
  const { baseDir } = context.master.layout;
  const since = clock.now().toISOString();
  const endMs = clock.monotonicMs() + LOCK_MS;
  for (;;) {
    try {
      return await deps.takeLock(lockNames(baseDir).sweep, { pid: deps.pid, verb: "drill D7", since });
    } catch (thrown) {
      const isLate = clock.monotonicMs() >= endMs;
      if (!(thrown instanceof OperatorError) || thrown.exit !== "locked" || isLate) throw thrown;
      context.report("waiting until the sweep that runs now has ended");
      await clock.wait(1_000);
    }
  }
}
