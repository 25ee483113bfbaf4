import { applyPlan, type RunResult } from "../engine/apply.ts";
import { type Journal, openJournal } from "../engine/journal.ts";
import { changesOf, describe, look } from "../engine/plan.ts";
import { OperatorError } from "../errors.ts";
import type { Lock } from "../machine/lock.ts";
import { type Part, parsePurge, type Purge, PURGEABLE } from "../leave/policy.ts";
import { lockNames } from "../settings/master-layout.ts";
import { surveyNode } from "../leave/survey.ts";
import { settleLeaveConsent } from "../leave/consent.ts";
import { prepareLeave } from "../leave/prepare.ts";
import { databasesThatStay, elsewhereOf, findHolds, partsToPurge, warnOfFlags } from "../leave/holds.ts";
import { findLeavingNode, type FoundNode } from "../leave/node.ts";
import { keptOf, keptWords, lastWords, planWords, returnWords } from "../leave/words.ts";
import type { VerbExit, World } from "../world.ts";

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
  const purge = readPurge(flags.purge);
  await refuseBlind(world);
  const found = await findLeavingNode(world, flags.baseDir, purge.parts);
  const since = world.host.clock.now().toISOString();
  const locks = flags.dryRun ? [] : await takeLocks(world, found, since);
  try {
    return await carryOut(world, found, { flags, purge, since });
  } finally {
    for (const lock of locks) await lock.release();
  }
}

async function carryOut(
  world: World,
  found: FoundNode,
  wish: { readonly flags: LeaveFlags; readonly purge: Purge; readonly since: string },
): Promise<VerbExit> {
  const { host, reporter, version } = world;
  const { flags, purge, since } = wish;
  const { node } = found;
  const asked = await surveyNode(host, node, purge.parts);
  const holds = await findHolds(host, found, { survey: asked, purge });
  const purged = partsToPurge(purge, holds);
  const flagsLeft = await warnOfFlags(host, found, purged);
  const steps = prepareLeave(world, found, { purged, release: flags.release });
  const [plan, survey] = await Promise.all([look(steps, host, new Set()), surveyNode(host, node, purged)]);
  const items = describe(plan);
  const others = [...survey.others, ...elsewhereOf(found)];
  const kept = keptOf(survey, purged);
  const words = await lastWords(host, found, { purged, databases: databasesThatStay(survey, found) });
  const isIdle = changesOf(plan).length === 0;
  for (const line of planWords(reporter, node, { items, kept, others })) reporter.note(line);
  const warnings = [
    ...holds.map(({ why }) => why),
    ...(flagsLeft === null ? [] : [flagsLeft]),
    ...(isIdle ? [] : words),
  ];
  for (const text of warnings) reporter.listen({ type: "warning", text });
  const done: RunResult = flags.dryRun || isIdle ? { changes: [] } : await apply();
  await reporter.close();
  reporter.result({
    data: {
      verb: VERB,
      version,
      kind: node.kind,
      baseDir: node.layout.baseDir,
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
            `Left: ${done.changes.length === 1 ? "one change" : `${done.changes.length} changes`}.`,
            ...keptWords(reporter, kept),
            ...returnWords(node, kept),
          ],
  });
  return flags.dryRun && !isIdle ? "pending" : "ok";

  async function apply(): Promise<RunResult> {
    const isPurging = survey.things.some(({ part }) => part !== null && purged.has(part));
    await settleLeaveConsent(world, { ...flags, isPurging });
    const journal = await openLeaveJournal(world, found, { purged, since });
    return await applyPlan({ plan, host, adopted: new Set(), journal, listen: reporter.listen });
  }
}

/** A journal that is not begun anew once this leave has removed it, as its last act but the directory. */
async function openLeaveJournal(
  { host, pid, version }: World,
  { node }: FoundNode,
  { purged, since }: { readonly purged: ReadonlySet<Part>; readonly since: string },
): Promise<Journal> {
  const path = node.layout.journal;
  const inner = openJournal({
    files: host.files,
    path,
    attempt: `${since}-${pid}`,
    version,
    now: () => host.clock.now(),
  });
  let isClosed = purged.has("logs") && (await host.files.stat(path)) === null;
  return {
    async around(step, change, effect) {
      isClosed ||= change.kind === "remove-journal";
      await (isClosed ? effect() : inner.around(step, change, effect));
    },
  };
}

/** Holds off joins, and what cron may be at: a snapshot that is being taken is finished first. */
async function takeLocks(world: World, { node }: FoundNode, since: string): Promise<readonly Lock[]> {
  const taken: Lock[] = [];
  try {
    for (const name of Object.values(lockNames(node.layout.baseDir)))
      taken.push(await world.takeLock(name, { pid: world.pid, verb: VERB, since }));
    return taken;
  } catch (thrown) {
    for (const lock of taken) await lock.release();
    throw thrown;
  }
}

function readPurge(given: readonly string[]): Purge {
  const read = parsePurge(given);
  if ("parts" in read) return read;
  throw new OperatorError({
    exit: "usage",
    what: `--purge knows nothing called ${read.unknown.map((word) => JSON.stringify(word)).join(", ")}.`,
    remedy: `It takes: ${Object.keys(PURGEABLE).join(", ")}, or all.`,
  });
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
