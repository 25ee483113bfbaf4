import { chooseDrills, type DrillDeps, type Entry, slugOf } from "../drills/catalogue.ts";
import type { Drill } from "../drills/drill.ts";
import { clearLeftovers } from "../drills/run/clear-leftovers.ts";
import { countStates, linesOfList, tapRefusal } from "../drills/run/drill-lines.ts";
import {
  type DrillScreen,
  openLogScreen,
  openTapScreen,
  openTextScreen,
} from "../drills/run/drill-screen.ts";
import { alarmOfDrills, recordDrills } from "../drills/run/record-drills.ts";
import { type DrillResult, type DrillRun, runDrills } from "../drills/run/run-drills.ts";
import { scheduleDrills, unscheduleDrills } from "../drills/run/schedule-drills.ts";
import { EXIT_CODES, OperatorError, type VerbExit } from "../errors.ts";
import {
  type InstalledMaster,
  readInstalledMaster,
  refuseUnfinishedRestore,
  refuseUnfinishedRotation,
} from "../join/installed-node.ts";
import { refuseRemoved } from "../join/master-database.ts";
import { type Lock, onceFree } from "../machine/lock.ts";
import { type AlarmSent, commandFailure } from "../pinset/alerts.ts";
import { CRON_FILES, lockNames } from "../settings/layout.ts";
import { timeOfDrills } from "../steps/master/cron-entry.ts";
import { monotonic } from "../status/collect.ts";
import type { World } from "../world.ts";

/** The flags of `drill`, as commander returns them. */
export interface DrillFlags {
  readonly baseDir?: string;
  readonly list: boolean;
  readonly tap: boolean;
  readonly verbose: boolean;
  readonly schedule: boolean;
  readonly unschedule: boolean;
  /** True for a run that cron has started. */
  readonly scheduled: boolean;
  readonly json?: boolean;
}

const VERB = "drill";

/**
 * `drill [NAME...]`: proves on this machine that what a master promises holds. It has the lock of joins and removals: what
 * they stop for a while is no finding.
 */
export async function drill(names: readonly string[], flags: DrillFlags, world: World): Promise<VerbExit> {
  refuseMixed(names, flags);
  const drills = await Promise.all(chooseDrills(names).map((entry) => entry.load()));
  if (flags.list) return list(chooseDrills(names), drills, world);
  let isBegun = false;
  try {
    return await underLock(names, drills, { flags, world, began: () => (isBegun = true) });
  } catch (thrown) {
    const isRefused = flags.tap && !isBegun && thrown instanceof OperatorError;
    for (const line of isRefused ? tapRefusal(thrown.message) : []) world.reporter.note(line);
    throw thrown;
  }
}

async function underLock(
  names: readonly string[],
  drills: readonly Drill<DrillDeps>[],
  { flags, world, began }: { readonly flags: DrillFlags; readonly world: World; readonly began: () => void },
): Promise<VerbExit> {
  const { host, pid } = world;
  const master = await readInstalledMaster(world, flags.baseDir);
  const { node } = lockNames(master.layout.baseDir);
  const take = (): Promise<Lock> =>
    world.takeLock(node, { pid, verb: VERB, since: host.clock.now().toISOString() });
  const lock = await (flags.scheduled ? onceFree(host, take) : take());
  try {
    if (flags.schedule || flags.unschedule) return await changeSchedule(flags, world, master);
    await refuseUnfinishedRestore(host, master.layout);
    await refuseUnfinishedRotation(host, master.layout);
    await refuseRemoved(host, master);
    began();
    return await rehearse(flags.scheduled ? drills.filter((one) => one.isScheduled) : drills, flags, {
      world,
      master,
      isNamed: names.length > 0,
    });
  } finally {
    await lock.release();
  }
}

/** Throws (`usage`) for flags that exclude each other. */
function refuseMixed(names: readonly string[], flags: DrillFlags): void {
  const [mode, other] = (["schedule", "unschedule", "scheduled", "list"] as const).filter(
    (one) => flags[one],
  );
  const what =
    other !== undefined
      ? `--${mode ?? ""} and --${other} exclude each other.`
      : flags.tap && (flags.json === true || mode !== undefined)
        ? `--tap and --${mode ?? "json"} exclude each other.`
        : mode !== undefined && mode !== "list" && names.length > 0
          ? `--${mode} takes no names: it is about every drill.`
          : null;
  if (what === null) return;
  throw new OperatorError({ exit: "usage", what, remedy: "fula-node drill --help explains each of them." });
}

function list(
  entries: readonly Entry[],
  drills: readonly Drill<DrillDeps>[],
  { reporter, version }: World,
): VerbExit {
  const whole = drills.flatMap((one) =>
    entries.filter(({ id }) => id === one.id).map(({ touches, usual }) => ({ ...one, touches, usual })),
  );
  const listed = whole.map((one) => {
    const { id, title, proves, touches, usual, isScheduled, deadlineMs } = one;
    return { id, name: slugOf(one), title, proves, touches, usual, isScheduled, deadlineMs };
  });
  reporter.result({
    data: { verb: VERB, version, drills: listed },
    lines: linesOfList(whole, (rows) => reporter.table(rows)),
  });
  return "ok";
}

async function changeSchedule(
  { schedule }: DrillFlags,
  world: World,
  master: InstalledMaster,
): Promise<VerbExit> {
  const { reporter, version } = world;
  const { baseDir, drillLog } = master.layout;
  const file = CRON_FILES.drill;
  const changed = await (schedule ? scheduleDrills : unscheduleDrills)(world, master);
  const when = timeOfDrills(world.hash, master.values("CLUSTER_PEERNAME") ?? "").words;
  await reporter.close();
  reporter.result({
    data: { verb: VERB, version, baseDir, file, when, isScheduled: schedule, changed },
    lines: schedule
      ? [
          changed
            ? `Cron runs every drill once a week now, ${when}: ${file}`
            : `Nothing to do: cron runs every drill once a week, ${when}: ${file}`,
          `Their output: ${drillLog}`,
        ]
      : [changed ? `Cron runs no drills any more: removed ${file}` : "Nothing to do: cron runs no drills."],
  });
  return "ok";
}

async function rehearse(
  drills: readonly Drill<DrillDeps>[],
  flags: DrillFlags,
  {
    world,
    master,
    isNamed,
  }: { readonly world: World; readonly master: InstalledMaster; readonly isNamed: boolean },
): Promise<VerbExit> {
  const { host, reporter, version, stop } = world;
  const { baseDir, drillLog } = master.layout;
  if (flags.scheduled) await world.rotateLog(drillLog);
  const startMs = monotonic.nowMs();
  const screen = openScreen(flags, world, drills.length);
  const running = drills.map(({ id }) => id);
  const cleared = await clearLeftovers(running, { deps: world, master, stop });
  screen.cleared(cleared.removed);
  for (const text of cleared.warnings) reporter.listen({ type: "warning", text });
  const run = await runDrills(drills, {
    // Nobody is to be called by a drill that they did not ask for.
    deps: { ...world, rehearsesAlarm: isNamed },
    master,
    stop,
    listener: screen,
  });
  const durationMs = Math.round(monotonic.nowMs() - startMs);
  const recorded = await orFault(() => recordDrills(host.files, master, run.results, isNamed));
  const alarm = flags.scheduled ? await orFault(() => raise(world, master, run.results)) : { value: null };
  const sent = "value" in alarm ? alarm.value : null;
  const exit = exitOf(run);
  reporter.result({
    data: {
      verb: VERB,
      version,
      baseDir,
      drills: run.results,
      leftovers: cleared.removed,
      counts: countStates(run.results),
      stopped: run.stopped,
      alarm: sent,
      durationMs,
      exit,
      exitCode: EXIT_CODES[exit],
    },
    lines: screen.end(run, durationMs, EXIT_CODES[exit]),
  });
  const faults = [recorded, alarm].flatMap((one) => ("fault" in one ? [one.fault] : []));
  const [fault, ...others] = [...faults, ...[commandFailure(sent)].filter((one) => one !== null)];
  // What the drills found is more than a record that could not be written.
  const told = exit === "ok" ? others : [...(fault === undefined ? [] : [fault]), ...others];
  for (const { what, why } of told)
    reporter.listen({ type: "warning", text: [what, why].filter(Boolean).join(" ") });
  if (fault !== undefined && exit === "ok") throw fault;
  return exit;
}

function openScreen({ tap, scheduled, verbose }: DrillFlags, world: World, count: number): DrillScreen {
  const { reporter, host } = world;
  if (tap) return openTapScreen(reporter, monotonic, count);
  return scheduled
    ? openLogScreen(reporter, () => host.clock.now())
    : openTextScreen(reporter, monotonic, verbose);
}

async function raise(
  world: World,
  { layout, values }: InstalledMaster,
  results: readonly DrillResult[],
): Promise<AlarmSent | null> {
  const channels = await world.openChannels({
    log: layout.alertLog,
    command: values("ALERT_COMMAND"),
    pool: values("CLUSTERNAME") ?? "",
  });
  return alarmOfDrills(world.host, channels, results);
}

/** The value, or the error for the operator. A bug is thrown on. */
async function orFault<Value>(
  work: () => Promise<Value>,
): Promise<{ readonly value: Value } | { readonly fault: OperatorError }> {
  try {
    return { value: await work() };
  } catch (thrown) {
    if (thrown instanceof OperatorError) return { fault: thrown };
    throw thrown;
  }
}

function exitOf({ results, stopped }: DrillRun): VerbExit {
  if (stopped !== null) return "interrupted";
  return results.some(({ state }) => state === "failed") ? "unhealthy" : "ok";
}
