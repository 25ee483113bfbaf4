import { issueToken } from "../accounts/token.ts";
import { createUser, type UserDeps } from "../accounts/users.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import { type InstalledMaster, readInstalledMaster } from "../join/installed-node.ts";
import { withMasterDatabase } from "../join/master-database.ts";
import { refuseUnfinishedRotation } from "../join/installed-node.ts";
import type { World } from "../world.ts";

interface UserFlags {
  readonly baseDir?: string;
  readonly email: string;
}

/** `user create --email E`: creates an account, or reports that it exists. */
export async function userCreate(flags: UserFlags, world: World): Promise<VerbExit> {
  const account = await withAccounts(flags, world, (deps) => createUser(deps, flags.email));
  const { created, userId } = account;
  world.reporter.result({
    data: { verb: "user create", ...account },
    lines: [
      created
        ? `Created the account ${userId}. To create an API key for it: fula-node user token --email ${flags.email}`
        : `Nothing to do: the account already exists (${userId}).`,
    ],
  });
  return "ok";
}

/**
 * `user token --email E [--name NAME] [--upload [--hours N]]`: prints a new API key as the only line on stdout. It can't be
 * printed again.
 */
export async function userToken(
  flags: UserFlags & { readonly name?: string; readonly upload?: boolean; readonly hours?: string },
  world: World,
): Promise<VerbExit> {
  const uploadHours = readHours(flags);
  const issued = await withAccounts(flags, world, (deps, { layout, values }) =>
    issueToken(
      {
        ...deps,
        clock: world.host.clock,
        jwtSecret: requireValue(layout.envFile, "JWT_SECRET", values("JWT_SECRET")),
      },
      { email: flags.email, name: flags.name, uploadHours },
    ),
  );
  if (issued.expiresAt !== null)
    // On standard error: the key is the only line of the output.
    world.reporter.listen({
      type: "warning",
      text: `This key is good for uploads only, and expires at ${issued.expiresAt}.`,
    });
  world.reporter.result({ data: { verb: "user token", ...issued }, lines: [issued.token] });
  return "ok";
}

/** A day: an upload takes less, and a key that a storage node's operator has read is soon worthless. */
const UPLOAD_HOURS = "24";
const MAX_UPLOAD_HOURS = 720;

/** Null without `--upload`. */
function readHours({ upload, hours }: { readonly upload?: boolean; readonly hours?: string }): number | null {
  if (upload !== true && hours === undefined) return null;
  const given = hours ?? UPLOAD_HOURS;
  if (upload === true && /^[1-9][0-9]{0,2}$/.test(given) && Number(given) <= MAX_UPLOAD_HOURS)
    return Number(given);
  throw new OperatorError({
    exit: "usage",
    what:
      upload === true
        ? `--hours is ${JSON.stringify(given.slice(0, 80))}; it must be a whole number from 1 to ${MAX_UPLOAD_HOURS}.`
        : "--hours is only for a key that is made with --upload.",
    remedy: upload === true ? "Pass a number, such as --hours 24." : "Add --upload, or leave out --hours.",
  });
}

async function withAccounts<Result>(
  { baseDir }: UserFlags,
  world: World,
  work: (deps: UserDeps, master: InstalledMaster) => Promise<Result>,
): Promise<Result> {
  const master = await readInstalledMaster(world, baseDir);
  const { layout, values } = master;
  await refuseUnfinishedRotation(world.host, layout);
  const encryptionKey = requireValue(layout.envFile, "ENCRYPTION_KEY", values("ENCRYPTION_KEY"));
  return withMasterDatabase(world, master, "user", (database) =>
    work({ database, random: world.host.random, encryptionKey }, master),
  );
}

function requireValue(envFile: string, key: string, value: string | undefined): string {
  if (value !== undefined && value !== "") return value;
  throw new OperatorError({
    exit: "settings",
    what: `${envFile} does not contain ${key}.`,
    remedy: "Run join-as-master again: it creates the value, or explains how to recover the old one.",
  });
}
