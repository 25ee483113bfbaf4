import { applyPlan, type RunResult } from "../engine/apply.ts";
import { type Journal, openJournal } from "../engine/journal.ts";
import { changesOf, describe } from "../engine/plan.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import { nameOf } from "../join/installed-node.ts";
import { findLeavingNode, type LeavePlan, planLeave } from "../leave/prepare.ts";
import { parsePurge } from "../leave/policy.ts";
import type { LeavingNode } from "../leave/survey.ts";
import type { Lock } from "../machine/lock.ts";
import { lockNames, MASTER_BASE_DIR, STORAGE_BASE_DIR } from "../settings/layout.ts";
import type { Reporter } from "../ui/reporter.ts";
import type { World } from "../world.ts";

/** The flags of `leave` as commander gives them. */
export interface LeaveFlags {
  readonly dryRun: boolean;
  readonly yes: boolean;
  readonly baseDir?: string;
  readonly purge: readonly string[];
  /** The machine's name, typed ahead. */
  readonly confirm?: string;
  /** False for `--no-release`. */
  readonly release: boolean;
}

const VERB = "leave";

/**
 * `leave`: stops and removes what fula-node made on this box. Data and settings stay unless `--purge` names
 * them, what is somebody else's stays always. Running it again finishes what was cut short.
 */
export async function leave(flags: LeaveFlags, world: World): Promise<VerbExit> {
  const purge = parsePurge(flags.purge);
  await refuseBlind(world);
  const node = await findLeavingNode(world, flags.baseDir, purge.parts);
  const since = world.host.clock.now().toISOString();
  const locks = flags.dryRun ? [] : await takeLocks(world, node, since);
  try {
    const plan = await planLeave(world, node, { purge, release: flags.release });
    return await carryOut(world, node, { ...plan, flags, since });
  } finally {
    for (const lock of locks) await lock.release();
  }
}

async function carryOut(
  world: World,
  node: LeavingNode,
  leaving: LeavePlan & { readonly flags: LeaveFlags; readonly since: string },
): Promise<VerbExit> {
  const { host, reporter, version } = world;
  const { flags, plan, kept: keptThings, others, warnings } = leaving;
  const items = describe(plan);
  const isIdle = changesOf(plan).length === 0;
  const kept = keptThings.map(({ part, kind, name }) => ({ part, kind, name }));
  for (const line of planWords(reporter, node, leaving)) reporter.note(line);
  for (const text of warnings) reporter.listen({ type: "warning", text });
  const isApplied = !flags.dryRun && !isIdle;
  if (isApplied) await settleConsent(world, { ...flags, isPurging: leaving.isPurging });
  const done: RunResult = isApplied
    ? await applyPlan({
        plan,
        host,
        adopted: new Set(),
        journal: await openLeaveJournal(world, node, leaving),
        listen: reporter.listen,
      })
    : { changes: [] };
  await reporter.close();
  const { kind, layout } = node;
  const { length } = done.changes;
  reporter.result({
    data: {
      verb: VERB,
      version,
      kind,
      baseDir: layout.baseDir,
      dryRun: flags.dryRun,
      plan: items,
      ...done,
      kept,
      others,
    },
    lines: flags.dryRun
      ? ["Dry run: nothing was changed."]
      : isIdle
        ? ["It has left already; nothing was changed."]
        : [
            `Left: ${length === 1 ? "one change" : `${length} changes`}.`,
            ...keptWords(reporter, leaving),
            ...returnWords(node, leaving),
          ],
  });
  return flags.dryRun && !isIdle ? "pending" : "ok";
}

/**
 * Has the operator's consent before anything is removed: `--yes` or an answer; for a purge the machine's name,
 * typed or by `--confirm`, since a window of the wrong machine looks like one of the right one. The right name
 * is consent where nothing is left to purge, too: the same command finishes what was cut short. Throws
 * `preflight`, with nothing changed.
 */
async function settleConsent(
  { questions, hostname }: World,
  { yes, confirm, isPurging }: Pick<LeaveFlags, "yes" | "confirm"> & { readonly isPurging: boolean },
): Promise<void> {
  if (isPurging) {
    const question = "What is purged is gone for good. Type this machine's name (hostname) to go on";
    const typed = confirm ?? (await questions?.text(question, ""));
    if (typed === hostname) return;
    throw new OperatorError({
      exit: "preflight",
      what: "A purge needs this machine's name, typed.",
      why: typed === undefined ? "There is no terminal to ask on." : "What was typed is not its name.",
      remedy: `Run again with --confirm HOSTNAME; this machine is ${hostname}. Or leave --purge out: everything is kept then.`,
    });
  }
  if (yes || confirm === hostname) return;
  if (questions === null) {
    throw new OperatorError({
      exit: "preflight",
      what: "Leaving requires your confirmation.",
      why: "There is no terminal to ask on.",
      remedy: "Read what --dry-run lists, then run again with --yes.",
    });
  }
  if (await questions.confirm("Remove this, and leave?", false)) return;
  throw new OperatorError({
    exit: "pending",
    what: "Stopped at your word, before the first change.",
    remedy: "Run again to be asked again.",
  });
}

/** A journal that is not begun anew once this leave has removed it, as its last act but the directory. */
async function openLeaveJournal(
  { host, pid, version }: World,
  { layout: { journal: path } }: LeavingNode,
  { purged, since }: Pick<LeavePlan, "purged"> & { readonly since: string },
): Promise<Journal> {
  const now = () => host.clock.now();
  const inner = openJournal({ files: host.files, path, attempt: `${since}-${pid}`, version, now });
  let isClosed = purged.has("logs") && (await host.files.stat(path)) === null;
  return {
    async around(step, change, effect) {
      isClosed ||= change.kind === "remove-journal";
      await (isClosed ? effect() : inner.around(step, change, effect));
    },
  };
}

/** Holds off joins, and what cron may be at: a snapshot that is being taken is finished first. */
async function takeLocks(world: World, { layout }: LeavingNode, since: string): Promise<readonly Lock[]> {
  const taken: Lock[] = [];
  try {
    for (const name of Object.values(lockNames(layout.baseDir)))
      taken.push(await world.takeLock(name, { pid: world.pid, verb: VERB, since }));
    return taken;
  } catch (thrown) {
    for (const lock of taken) await lock.release();
    throw thrown;
  }
}

/** An engine that does not answer shows no containers; they would come back with it. */
async function refuseBlind({ host }: World): Promise<void> {
  if (host.system.uid() !== 0) {
    throw new OperatorError({ exit: "preflight", what: "This needs root.", remedy: "Run it with sudo." });
  }
  const [why, program] = await Promise.all([host.docker.unreachable(), host.system.which("dockerd")]);
  if (why === null || program === null) return;
  throw new OperatorError({
    exit: "unavailable",
    what: `Docker is installed, but does not answer: ${why}.`,
    why: "Containers that can't be seen can't be removed, and would be back with it.",
    remedy: "Start it (systemctl start docker), then run again.",
  });
}

/** The plan for people: what goes, what stays and how to be rid of it, what is not ours. */
function planWords(reporter: Reporter, { kind, layout }: LeavingNode, leaving: LeavePlan): readonly string[] {
  const going = leaving.plan.flatMap(({ step, changes }) => changes.map(({ summary }) => [step.id, summary]));
  const others = [...leaving.others, "Docker and other packages, pulled images"];
  return [
    `The ${nameOf(kind)} in ${layout.baseDir} leaves`,
    ...(going.length === 0 ? ["Nothing is left to remove."] : reporter.table(going)),
    ...keptWords(reporter, leaving),
    "Not ours to remove, so it stays as it is",
    ...reporter.table(others.map((other) => ["", other])),
  ];
}

/** What stays, and which word of `--purge` would remove it. */
function keptWords(reporter: Reporter, { kept }: LeavePlan): readonly string[] {
  if (kept.length === 0) return [];
  const rows = kept.map(({ part, kind, name }) => [part, kind === "volume" ? `volume ${name}` : name]);
  return ["Kept (--purge WHAT removes it too)", ...reporter.table(rows)];
}

/** How to come back, if there is something to come back to. */
function returnWords({ kind, layout, writerDir }: LeavingNode, { kept }: LeavePlan): readonly string[] {
  if (!kept.some(({ part }) => part === "data" || part === "settings")) return [];
  const [verb, home] =
    kind === "master" ? ["join-as-master", MASTER_BASE_DIR] : ["join-as-storage-node", STORAGE_BASE_DIR];
  const hadWriter = writerDir !== null && kept.some(({ name }) => name.startsWith(`${writerDir}/`));
  const flags = [
    ...(hadWriter ? ["--provision-writer"] : []),
    ...(layout.baseDir === home ? [] : [`--base-dir ${layout.baseDir}`]),
  ];
  return [`To come back with what is kept: ${["fula-node", verb, ...flags].join(" ")}`];
}
