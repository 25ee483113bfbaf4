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

/** `user create --email E`: makes an account, or says that it is there. */
export async function userCreate(flags: UserFlags, world: World): Promise<VerbExit> {
  const account = await withAccounts(flags, world, (hands) => createUser(hands, flags.email));
  const { created, userId } = account;
  world.reporter.result({
    data: { verb: "user create", ...account },
    lines: [
      created
        ? `Made the account ${userId}. A key for it: fula-node user token --email ${flags.email}`
        : `Nothing to do: the account is there (${userId}).`,
    ],
  });
  return "ok";
}

/** `user token --email E [--name NAME]`: prints a new API key, which is the only line on stdout, and only now. */
export async function userToken(
  flags: UserFlags & { readonly name?: string },
  world: World,
): Promise<VerbExit> {
  const issued = await withAccounts(flags, world, (hands, { layout, values }) =>
    issueToken(
      {
        ...hands,
        clock: world.host.clock,
        jwtSecret: needed(layout.envFile, "JWT_SECRET", values("JWT_SECRET")),
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
  work: (hands: UserDeps, master: InstalledMaster) => Promise<Result>,
): Promise<Result> {
  const master = await readInstalledMaster(world, baseDir);
  const { layout, values } = master;
  const target = databaseOf(master);
  const encryptionKey = needed(layout.envFile, "ENCRYPTION_KEY", values("ENCRYPTION_KEY"));
  const settings = { ...target, maxConnections: 1, idleTimeoutMs: 1_000, connectTimeoutMs: 5_000 };
  const database = world.openPool(settings, { applicationName: "fula-node user", log: () => undefined });
  try {
    return await work({ database, random: world.host.random, encryptionKey }, master);
  } catch (thrown) {
    throw thrown instanceof OperatorError ? thrown : explain(thrown, `${target.host}:${target.port}`);
  } finally {
    await database.close();
  }
}

function needed(envFile: string, key: string, value: string | undefined): string {
  if (value !== undefined && value !== "") return value;
  throw new OperatorError({
    exit: "settings",
    what: `${envFile} holds no ${key}.`,
    remedy: "Run join-as-master again: it makes one, or says how to get the old one back.",
  });
}

function explain(thrown: unknown, where: string): unknown {
  const { severity, code } = (thrown ?? {}) as { readonly severity?: unknown; readonly code?: unknown };
  if (severity === undefined) {
    return new OperatorError({
      exit: "unavailable",
      what: `PostgreSQL at ${where} can't be reached: ${messageOf(thrown) || String(code)}.`,
      remedy: "See that it runs (fula-node status), then run again.",
      cause: thrown,
    });
  }
  if (code === "42P01" || code === "42703") {
    return new OperatorError({
      exit: "pending",
      what: "The database lacks a table or column that accounts need.",
      remedy: "Run fula-node migrate up, then this again.",
      cause: thrown,
    });
  }
  const fault = faultOfState(code);
  if (fault === "not-admitted" || fault === "no-database") {
    return new OperatorError({
      exit: "settings",
      what: `PostgreSQL at ${where} does not let us in: ${messageOf(thrown)}.`,
      remedy: "Run join-as-master again: it finds out which of the POSTGRES_ settings is wrong.",
      cause: thrown,
    });
  }
  return thrown;
}
