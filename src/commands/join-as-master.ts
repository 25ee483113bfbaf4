import { openJournal } from "../engine/journal.ts";
import { run, type RunOutcome } from "../engine/run.ts";
import { OperatorError } from "../errors.ts";
import { MASTER_BASE_DIR, masterLayout } from "../model/master-layout.ts";
import { RULES } from "../model/rule.ts";
import type { MasterContext } from "../steps/master-context.ts";
import type { JoinFlags } from "./join-flags.ts";
import { settleWishes } from "./master-wishes.ts";
import { prepareMaster } from "./prepare-master.ts";
import type { VerbExit, World } from "./world.ts";

const VERB = "join-as-master";

/** Makes this box a master, or mends the master that it is; `dryRun` only tells. */
export async function joinAsMaster(flags: JoinFlags, world: World): Promise<VerbExit> {
  const { host, reporter } = world;
  const baseDir = checkBaseDir(flags.baseDir ?? MASTER_BASE_DIR);
  const layout = masterLayout(baseDir);
  const since = host.clock.now().toISOString();
  const lock = flags.dryRun ? null : await world.takeLock(baseDir, { pid: world.pid, verb: VERB, since });
  try {
    const { settings, provisionWriter } = await settleWishes(flags, layout, world);
    const { steps, context } = await prepareMaster(world, {
      layout,
      settings,
      provisionWriter,
      imagesArchive: flags.images ?? null,
    });
    const outcome = await run({
      steps,
      host,
      journal: openJournal({
        files: host.files,
        path: layout.journal,
        attempt: `${since}-${world.pid}`,
        version: world.version,
        now: () => host.clock.now(),
      }),
      listen: reporter.listen,
      ask:
        world.questions === null || flags.dryRun
          ? null
          : (question, byDefault) =>
              world.questions?.confirm(question, byDefault) ?? Promise.resolve(byDefault),
      dryRun: flags.dryRun,
      yes: flags.yes,
      adopted: checkAdopt(
        flags.adopt,
        steps.map(({ id }) => id),
      ),
      consents: new Set(provisionWriter ? ["--provision-writer"] : []),
    });
    await reporter.close();
    const pending = flags.dryRun && outcome.plan.some(({ changes }) => changes.length > 0);
    reporter.result({
      data: { verb: VERB, version: world.version, baseDir, ...outcome },
      lines: closingLines(outcome, context),
    });
    return pending ? "pending" : "ok";
  } finally {
    await lock?.release();
  }
}

function checkBaseDir(baseDir: string): string {
  if (RULES.path.holds(baseDir) && !baseDir.endsWith("/") && !baseDir.includes("..")) return baseDir;
  throw new OperatorError({
    exit: "usage",
    what: `--base-dir is ${JSON.stringify(baseDir)}; it must be ${RULES.path.say}.`,
    remedy: `Leave it out for ${MASTER_BASE_DIR}.`,
  });
}

function checkAdopt(adopt: readonly string[], known: readonly string[]): ReadonlySet<string> {
  const unknown = adopt.filter((id) => !known.includes(id));
  if (unknown.length === 0) return new Set(adopt);
  throw new OperatorError({
    exit: "usage",
    what: `There is no step ${unknown.join(", ")}.`,
    remedy: `Steps are: ${known.join(", ")}.`,
  });
}

function closingLines(
  { dryRun, changes }: RunOutcome,
  { layout, nodePath }: MasterContext,
): readonly string[] {
  if (dryRun) return ["Dry run: nothing was changed."];
  if (changes.length === 0) return ["Everything works; nothing had to be changed."];
  return [
    `Done: ${changes.length === 1 ? "one change" : `${changes.length} changes`}, and everything works.`,
    `  Settings and secrets: ${layout.envFile} (keep a copy elsewhere)`,
    `  Snapshots:            ${layout.snapshotsDir}, key ${layout.signingKey} (keep a copy elsewhere)`,
    `  Look again:           ${nodePath} ${layout.cliCurrent}/bin/fula-node.js status`,
  ];
}
