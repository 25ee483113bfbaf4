import type { VerbExit } from "../errors.ts";
import { readInstalledMaster } from "../join/installed-node.ts";
import { refuseOtherBaseDir, takeLocks } from "../join/one-node.ts";
import { rotateSecret } from "../rotation/rotate.ts";
import { baseDirFlag, lockNames } from "../settings/layout.ts";
import { parseSecretName, ROTATED } from "../settings/rotation.ts";
import type { World } from "../world.ts";

/** The flags of `secret rotate` as commander gives them. */
export interface SecretFlags {
  readonly baseDir?: string;
  readonly dryRun: boolean;
  readonly yes: boolean;
  readonly valueFile?: string;
}

const VERB = "secret rotate";

/** `secret rotate NAME`: changes one secret of this master, or finishes a change that was interrupted. */
export async function secretRotate(given: string, flags: SecretFlags, world: World): Promise<VerbExit> {
  const secret = parseSecretName(given);
  const { host, reporter, version } = world;
  const { layout } = await readInstalledMaster(world, flags.baseDir);
  const { baseDir } = layout;
  const since = host.clock.now().toISOString();
  const holder = { pid: world.pid, verb: VERB, since };
  const names = lockNames(baseDir);
  const lock = flags.dryRun ? null : await takeLocks(world, [names.node, names.machine], holder);
  /** A snapshot that is being taken reads and writes the record of the chain. */
  const guard = async <Result>(work: () => Promise<Result>): Promise<Result> => {
    if (flags.dryRun || ROTATED[secret] !== null) return await work();
    const second = await world.takeLock(names.snapshot, holder);
    try {
      return await work();
    } finally {
      await second.release();
    }
  };
  try {
    await refuseOtherBaseDir(host, "master", baseDir);
    // Read again: another run may have changed a secret before this one had the lock.
    const master = await readInstalledMaster(world, flags.baseDir);
    const { dryRun, yes, valueFile } = flags;
    const hereFlags = baseDirFlag(baseDir);
    const result = await rotateSecret(
      world,
      master,
      { secret, dryRun, yes, valueFile, since, hereFlags },
      guard,
    );
    await reporter.close();
    const isIdle = result.plan.length === 0;
    reporter.result({
      data: { verb: VERB, version, baseDir, secret, ...result },
      lines: isIdle
        ? [`Nothing to do: the ${secret} has this value.`]
        : dryRun
          ? ["Dry run: nothing was changed."]
          : [`Done: the ${secret} is changed, and everything works.`],
    });
    return dryRun && !isIdle ? "pending" : "ok";
  } finally {
    await lock?.release();
  }
}
