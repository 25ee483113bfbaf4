import type { DownPreview } from "../database/migrator.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import { databaseOf, readInstalledMaster, refuseUnfinishedRestore } from "../join/installed-node.ts";
import type { PostgresTarget } from "../settings/postgres-target.ts";
import type { World } from "../world.ts";

interface MigrateFlags {
  readonly baseDir?: string;
}

/** `migrate status`: which files are applied, adopted or pending. */
export async function migrateStatus(flags: MigrateFlags, world: World): Promise<VerbExit> {
  const target = databaseOf(await readInstalledMaster(world, flags.baseDir));
  const status = await world.host.migrations.status(target);
  const exit = status.pending === 0 ? "ok" : "pending";
  const lines = status.items.map(
    ({ file, state, origin, reason }) => `${file}: ${origin === "adopted" ? "adopted" : state} (${reason})`,
  );
  world.reporter.result({ data: { verb: "migrate status", ...status, exit }, lines });
  return exit;
}

/** `migrate up`: applies the pending migrations. */
export async function migrateAllUp(flags: MigrateFlags, world: World): Promise<VerbExit> {
  const target = await databaseToChange(flags, world);
  const { done } = await world.host.migrations.up(target, { report: (line) => world.reporter.note(line) });
  world.reporter.result({
    data: { verb: "migrate up", done },
    lines: [done.length === 0 ? "Nothing to do: every migration is applied." : `Applied: ${done.length}.`],
  });
  return "ok";
}

/** `migrate down VERSION`: reverts one migration, if its down file allows it. */
export async function migrateOneDown(
  version: string,
  flags: MigrateFlags & { readonly yes: boolean },
  world: World,
): Promise<VerbExit> {
  if (!/^[0-9]{1,6}$/.test(version)) {
    throw new OperatorError({
      exit: "usage",
      what: `VERSION is ${JSON.stringify(version)}; it must be a migration's number, such as 020.`,
    });
  }
  const target = await databaseToChange(flags, world);
  const [preview] = await world.host.migrations.previewDown(target, [Number(version)]);
  if (preview !== undefined && !flags.yes) await confirmDown(preview, world);
  const { done } = await world.host.migrations.down(target, [Number(version)], {
    report: (line) => world.reporter.note(line),
  });
  world.reporter.result({
    data: { verb: "migrate down", done },
    lines: [
      done.length === 0
        ? `Nothing to do: ${version} is not applied.`
        : `Reverted: ${version}. The next migrate up or join-as-master applies it again.`,
    ],
  });
  return "ok";
}

async function databaseToChange({ baseDir }: MigrateFlags, world: World): Promise<PostgresTarget> {
  const master = await readInstalledMaster(world, baseDir);
  await refuseUnfinishedRestore(world.host, master.layout);
  return databaseOf(master);
}

/** Asks on the terminal. Throws (`preflight`) without one, and (`pending`) if the answer is no. */
async function confirmDown(
  { file, removes }: DownPreview,
  { questions }: Pick<World, "questions">,
): Promise<void> {
  const effect =
    removes.length === 0 ? `${file} changes the schema.` : `${file} removes ${removes.join(", ")}.`;
  if (questions === null) {
    throw new OperatorError({
      exit: "preflight",
      what: `Confirmation required: ${effect}`,
      why: "There is no terminal to ask on.",
      remedy: "Take a backup of the database, then run again with --yes.",
    });
  }
  if (await questions.confirm(`${effect} Revert it?`, false)) return;
  throw new OperatorError({
    exit: "pending",
    what: "You answered no. Stopped before the first change.",
    remedy: "Run the command again if you want to revert that migration.",
  });
}
