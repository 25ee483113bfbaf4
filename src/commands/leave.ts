import { applyPlan, type RunResult } from "../engine/apply.ts";
import { type Journal, openJournal } from "../engine/journal.ts";
import { changesOf, describe } from "../engine/plan.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import { nameOf } from "../join/installed-node.ts";
import { takeLocks } from "../join/one-node.ts";
import { requireDocker } from "../join/silent-docker.ts";
import { parsePurge } from "../leave/policy.ts";
import { findLeavingNode, type LeavePlan, planLeave } from "../leave/prepare.ts";
import type { LeavingNode } from "../leave/survey.ts";
import { baseDirFlag, lockNames, MASTER_BASE_DIR, STORAGE_BASE_DIR } from "../settings/layout.ts";
import type { Reporter } from "../ui/reporter.ts";
import type { World } from "../world.ts";

/** The flags of `leave` as commander gives them. */
export interface LeaveFlags {
  readonly dryRun: boolean;
  readonly yes: boolean;
  readonly baseDir?: string;
  readonly purge: readonly string[];
  /** The machine's name, as the operator gave it on the command line. */
  readonly confirm?: string;
  /** False for `--no-release`. */
  readonly release: boolean;
}

/** The confirmations that were given, and whether something is purged. */
type Confirmation = Pick<LeaveFlags, "yes" | "confirm"> & Pick<LeavePlan, "isPurging">;

const VERB = "leave";

/**
 * `leave`: stops and removes what fula-node created on this machine. Data and settings stay unless `--purge` names
 * them. What fula-node did not create always stays. A second run finishes an interrupted one.
 */
export async function leave(flags: LeaveFlags, world: World): Promise<VerbExit> {
  const purge = parsePurge(flags.purge);
  await requireRootAndDocker(world);
  const since = world.host.clock.now().toISOString();
  const node = await findLeavingNode(world, flags.baseDir, purge.parts).catch(async (thrown: unknown) => {
    if (!flags.dryRun && thrown instanceof OperatorError && thrown.exit === "settings")
      await removeLockFiles(world, flags.baseDir, since);
    throw thrown;
  });
  // Also those of what cron runs: a snapshot that is being taken is finished first.
  const names = flags.dryRun ? [] : Object.values(lockNames(node.layout.baseDir));
  const lock = await takeLocks(world, names, { pid: world.pid, verb: VERB, since });
  try {
    const plan = await planLeave(world, node, { purge, release: flags.release });
    return await carryOut(world, node, { ...plan, flags, since });
  } finally {
    await lock.release();
  }
}

/** Where there is no node, a leave that was killed after its last removal has left the files of its locks, at most. */
async function removeLockFiles(world: World, given: string | undefined, since: string): Promise<void> {
  for (const baseDir of given === undefined ? [MASTER_BASE_DIR, STORAGE_BASE_DIR] : [given])
    for (const name of Object.values(lockNames(baseDir)))
      try {
        const lock = await world.takeLock(name, { pid: world.pid, verb: VERB, since });
        await lock.release();
      } catch (thrown) {
        // Somebody works there now, and removes the file at the end.
        if (!(thrown instanceof OperatorError) || thrown.exit !== "locked") throw thrown;
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
  for (const line of formatPlan(reporter, node, leaving)) reporter.note(line);
  for (const text of warnings) reporter.listen({ type: "warning", text });
  const isApplied = !flags.dryRun && !isIdle;
  const confirmation = { ...flags, isPurging: leaving.isPurging };
  if (isApplied) await requireConfirmation(world, confirmation);
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
  const skipped = isApplied ? await findSkipped(host, leaving, done) : [];
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
      others: [...others, ...skipped],
    },
    lines: flags.dryRun
      ? ["Dry run: nothing was changed.", ...(isIdle ? [] : formatConfirmation(world.hostname, confirmation))]
      : isIdle
        ? ["It left earlier. Nothing was changed."]
        : [
            `Done: ${length === 1 ? "1 change" : `${length} changes`}.`,
            ...(skipped.length === 0
              ? []
              : ["Planned, but not removed", ...reporter.table(skipped.map((one) => ["", one]))]),
            ...formatKept(reporter, leaving),
            ...formatReturn(node, leaving),
          ],
  });
  return flags.dryRun && !isIdle ? "pending" : "ok";
}

/** What was planned and then stayed, a phrase each: something else has begun to use it, or it is not ours any more. */
async function findSkipped(
  host: World["host"],
  { going }: LeavePlan,
  { changes }: RunResult,
): Promise<readonly string[]> {
  const done = new Set(changes.map(({ change }) => change.summary));
  // What is gone needs no mention: a program removes some of its own files when it stops.
  const left = await Promise.all(
    going.map(async (thing) => !done.has(thing.summary) && (await thing.isHere(host))),
  );
  return going.flatMap(({ summary }, index) =>
    left[index] === true ? [`${summary}: something else uses it now, or it is not ours any more`] : [],
  );
}

/**
 * The confirmation that is still required: `--yes`, or for a purge the machine's name, since a terminal on the wrong
 * machine looks like one on the right one. The name is enough without a purge too, so that the same command finishes
 * an interrupted purge.
 */
function missingConfirmation(
  hostname: string,
  { yes, confirm, isPurging }: Confirmation,
): "name" | "yes" | null {
  if (confirm === hostname || (yes && !isPurging)) return null;
  return isPurging ? "name" : "yes";
}

/**
 * Asks for the confirmation that is still required. Throws `preflight` without one, and `pending` if the answer is no;
 * nothing is changed then.
 */
async function requireConfirmation(
  { questions, hostname }: World,
  confirmation: Confirmation,
): Promise<void> {
  const missing = missingConfirmation(hostname, confirmation);
  if (missing === null) return;
  if (missing === "name") {
    const question = "A purge cannot be undone. To continue, type this machine's name (hostname)";
    const typed = confirmation.confirm ?? (await questions?.text(question, ""));
    if (typed === hostname) return;
    throw new OperatorError({
      exit: "preflight",
      what: "Confirmation required: a purge needs this machine's name.",
      why:
        typed === undefined
          ? "There is no terminal to ask on."
          : "The given name is not this machine's name.",
      remedy: `Run again with --confirm ${hostname}. Or run it without --purge, which keeps the data.`,
    });
  }
  if (questions === null) {
    throw new OperatorError({
      exit: "preflight",
      what: "Confirmation required: leave removes what is listed.",
      why: "There is no terminal to ask on.",
      remedy: "Read the list of --dry-run, then run again with --yes.",
    });
  }
  if (await questions.confirm("Remove this and leave?", false)) return;
  throw new OperatorError({
    exit: "pending",
    what: "You answered no. Nothing was changed.",
    remedy: "Run again and confirm when you want to leave.",
  });
}

/** A journal that writes nothing after this leave has removed its file, which comes last, just before the directory. */
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

/** Refuses to run without root, and while the containers can't be seen. */
async function requireRootAndDocker({ host }: World): Promise<void> {
  if (host.system.uid() !== 0) {
    throw new OperatorError({ exit: "preflight", what: "This needs root.", remedy: "Run it with sudo." });
  }
  await requireDocker(host, "Its containers can't be found now, and would run again when Docker starts.");
}

/** The plan as text: what is removed, what is kept and how to remove it, and what fula-node did not create. */
function formatPlan(
  reporter: Reporter,
  { kind, layout }: LeavingNode,
  leaving: LeavePlan,
): readonly string[] {
  const going = leaving.plan.flatMap(({ step, changes }) => changes.map(({ summary }) => [step.id, summary]));
  const others = [...leaving.others, "Docker and other packages, pulled images"];
  return [
    `leave · ${nameOf(kind)} in ${layout.baseDir}`,
    ...(going.length === 0 ? ["Nothing is left to remove."] : reporter.table(going)),
    ...formatKept(reporter, leaving),
    "Not created by fula-node, so it stays",
    ...reporter.table(others.map((other) => ["", other])),
  ];
}

/** What is kept, each with the part that `--purge` must name to remove it. */
function formatKept(reporter: Reporter, { kept }: LeavePlan): readonly string[] {
  if (kept.length === 0) return [];
  const rows = kept.map(({ part, kind, name }) => [part, kind === "volume" ? `volume ${name}` : name]);
  return ["Kept (add --purge WHAT to remove it)", ...reporter.table(rows)];
}

/** What the real run requires before it removes anything. */
function formatConfirmation(hostname: string, confirmation: Confirmation): readonly string[] {
  const missing = missingConfirmation(hostname, confirmation);
  if (missing === null) return [];
  return missing === "name"
    ? [
        "Confirmation required: a purge asks for this machine's name, or takes it from",
        `  --confirm ${hostname}`,
      ]
    : ["Confirmation required: leave asks for it, or takes --yes."];
}

/** The command of a later join, if there is something that it can use. */
function formatReturn(
  { kind, layout, writerDir, values }: LeavingNode,
  { kept, needsConsent }: LeavePlan,
): readonly string[] {
  if (!kept.some(({ part }) => part === "data" || part === "settings")) return [];
  const [verb, home] =
    kind === "master" ? ["join-as-master", MASTER_BASE_DIR] : ["join-as-storage-node", STORAGE_BASE_DIR];
  const hadWriter = writerDir !== null && kept.some(({ name }) => name.startsWith(`${writerDir}/`));
  const command = `npx fula-node ${verb}${hadWriter ? " --provision-writer" : ""}`;
  return [
    ...(needsConsent
      ? [
          "Before it joins again, on another master of the pool (without it, the join ends with 23):",
          `  fula-node trust add ${values("CLUSTER_PEERNAME") ?? "NAME"}`,
        ]
      : []),
    `To join again with what was kept: ${command}${baseDirFlag(layout.baseDir, home)}`,
  ];
}
