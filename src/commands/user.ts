import { messageOf, OperatorError, type VerbExit } from "../errors.ts";
import { faultOfState } from "../database/connection-fault.ts";
import { createUser, type UserDeps } from "../accounts/users.ts";
import { issueToken } from "../accounts/token.ts";
import { databaseOf, type InstalledMaster, readInstalledMaster } from "../join/installed-node.ts";
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

/** `user token --email E [--name NAME]`: prints a new API key as the only line on stdout. It can't be printed again. */
export async function userToken(
  flags: UserFlags & { readonly name?: string },
  world: World,
): Promise<VerbExit> {
  const issued = await withAccounts(flags, world, (deps, { layout, values }) =>
    issueToken(
      {
        ...deps,
        clock: world.host.clock,
        jwtSecret: requireValue(layout.envFile, "JWT_SECRET", values("JWT_SECRET")),
      },
      { email: flags.email, name: flags.name },
    ),
  );
  world.reporter.result({ data: { verb: "user token", ...issued }, lines: [issued.token] });
  return "ok";
}

async function withAccounts<Result>(
  { baseDir }: UserFlags,
  world: World,
  work: (deps: UserDeps, master: InstalledMaster) => Promise<Result>,
): Promise<Result> {
  const master = await readInstalledMaster(world, baseDir);
  const { layout, values } = master;
  const target = databaseOf(master);
  const encryptionKey = requireValue(layout.envFile, "ENCRYPTION_KEY", values("ENCRYPTION_KEY"));
  const settings = { ...target, maxConnections: 1, idleTimeoutMs: 1_000, connectTimeoutMs: 5_000 };
  const database = world.openPool(settings, { applicationName: "fula-node user", log: () => undefined });
  try {
    return await work({ database, random: world.host.random, encryptionKey }, master);
  } catch (thrown) {
    throw thrown instanceof OperatorError
      ? thrown
      : explainDatabaseError(thrown, `${target.host}:${target.port}`);
  } finally {
    await database.close();
  }
}

function requireValue(envFile: string, key: string, value: string | undefined): string {
  if (value !== undefined && value !== "") return value;
  throw new OperatorError({
    exit: "settings",
    what: `${envFile} does not contain ${key}.`,
    remedy: "Run join-as-master again: it creates the value, or explains how to recover the old one.",
  });
}

function explainDatabaseError(thrown: unknown, where: string): unknown {
  const { severity, code } = (thrown ?? {}) as { readonly severity?: unknown; readonly code?: unknown };
  if (severity === undefined) {
    return new OperatorError({
      exit: "unavailable",
      what: `PostgreSQL at ${where} can't be reached: ${messageOf(thrown) || String(code)}.`,
      remedy: "Check that it runs (fula-node status), then run again.",
      cause: thrown,
    });
  }
  if (code === "42P01" || code === "42703") {
    return new OperatorError({
      exit: "pending",
      what: "The database lacks a table or column that accounts need.",
      remedy: "Run fula-node migrate up, then run this command again.",
      cause: thrown,
    });
  }
  const fault = faultOfState(code);
  if (fault === "access-denied" || fault === "no-database") {
    return new OperatorError({
      exit: "settings",
      what: `PostgreSQL at ${where} refused the connection: ${messageOf(thrown)}.`,
      remedy: "Run join-as-master again: it reports which POSTGRES_ setting is wrong.",
      cause: thrown,
    });
  }
  return thrown;
}
