import { accountIdOf, userIdOf } from "../accounts/account-id.ts";
import { listAccounts } from "../accounts/account-list.ts";
import { adjustCredit, holdAccount, type MadeAdjustment, releaseAccount } from "../accounts/credits.ts";
import { issueToken } from "../accounts/token.ts";
import { createUser, emailOf, type UserDeps } from "../accounts/users.ts";
import { OperatorError, type VerbExit } from "../errors.ts";
import { parseDuration } from "../federation/invite.ts";
import {
  type InstalledMaster,
  readInstalledMaster,
  refuseUnfinishedRotation,
} from "../join/installed-node.ts";
import { withMasterDatabase } from "../join/master-database.ts";
import { countOf, decimalBytes, grouped, visible } from "../units.ts";
import type { World } from "../world.ts";

interface BaseFlags {
  readonly baseDir?: string;
}

/** The flags that name an account by its address. */
export interface UserFlags extends BaseFlags {
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
 * `user token --email E [--name NAME] [--upload] [--expires TIME]`: prints a new API key as the only line on stdout. It
 * can't be printed again.
 */
export async function userToken(flags: KeyFlags, world: World): Promise<VerbExit> {
  const lifetimeMs = readLifetime(flags);
  const issued = await withAccounts(flags, world, (deps, { layout, values }) =>
    issueToken(
      {
        ...deps,
        clock: world.host.clock,
        jwtSecret: requireValue(layout.envFile, "JWT_SECRET", values("JWT_SECRET")),
      },
      { email: flags.email, name: flags.name, uploadOnly: flags.upload === true, lifetimeMs },
    ),
  );
  if (issued.expiresAt !== null)
    // On standard error: the key is the only line of the output.
    world.reporter.listen({
      type: "warning",
      text:
        flags.upload === true
          ? `This key is good for uploads only, and expires at ${issued.expiresAt}.`
          : `This key expires at ${issued.expiresAt}.`,
    });
  world.reporter.result({ data: { verb: "user token", ...issued }, lines: [issued.token] });
  return "ok";
}

/** The flags of `user token`. */
export interface KeyFlags extends UserFlags {
  readonly name?: string;
  readonly upload?: boolean;
  readonly hours?: string;
  readonly expires?: string;
}

/** A day: an upload takes less, and a key that a storage node's operator has read is soon worthless. */
const UPLOAD_HOURS = "24";
const MAX_UPLOAD_HOURS = 720;
const MAX_KEY_DAYS = 3_650;

/** How long the key is valid; null: until it is revoked, which a key for uploading never is. */
function readLifetime({ upload, hours, expires }: KeyFlags): number | null {
  if (hours !== undefined && (upload !== true || expires !== undefined))
    throw usage(
      upload === true
        ? "--hours and --expires both say when the key expires."
        : "--hours is only for a key that is made with --upload.",
      upload === true ? "Pass one of them." : "Pass --expires, or add --upload.",
    );
  if (expires !== undefined) {
    const maxDays = upload === true ? MAX_UPLOAD_HOURS / 24 : MAX_KEY_DAYS;
    const lifetimeMs = parseDuration(expires, maxDays);
    if (lifetimeMs !== null) return lifetimeMs;
    throw usage(
      `--expires is ${quoted(expires)}; it must be a duration such as 90m, 24h or 30d, at most ${maxDays} days.`,
      "Pass a duration, such as --expires 30d.",
    );
  }
  if (upload !== true) return null;
  const given = hours ?? UPLOAD_HOURS;
  if (/^[1-9][0-9]{0,2}$/.test(given) && Number(given) <= MAX_UPLOAD_HOURS) return Number(given) * 3_600_000;
  throw usage(
    `--hours is ${quoted(given)}; it must be a whole number from 1 to ${MAX_UPLOAD_HOURS}.`,
    "Pass a number, such as --hours 24.",
  );
}

const DEFAULT_PAGE = "100";
const MAX_PAGE = 1_000;

/** The flags of `user list`. */
export interface ListFlags extends BaseFlags {
  readonly after?: string;
  readonly limit?: string;
}

/** `user list [--after ID] [--limit N]`: accounts with their usage and balance, in the order of their ids. */
export async function userList(flags: ListFlags, world: World): Promise<VerbExit> {
  const { after = "", limit = DEFAULT_PAGE } = flags;
  if (!/^[1-9][0-9]{0,3}$/.test(limit) || Number(limit) > MAX_PAGE)
    throw usage(`--limit is ${quoted(limit)}; it must be a whole number from 1 to ${MAX_PAGE}.`);
  if (after !== "" && accountIdOf(after) !== after)
    throw usage(
      `--after is ${quoted(after)}; it must be an account's id.`,
      "Pass the last id of the page before.",
    );
  const found = await withAccounts(flags, world, ({ database, encryptionKey }) =>
    listAccounts(database, { after, limit: Number(limit) + 1 }, encryptionKey),
  );
  const accounts = found.slice(0, Number(limit));
  const next = found.length > accounts.length ? (accounts.at(-1)?.account ?? null) : null;
  const rows = accounts.map(({ account, email, storageBytes, balanceFula, isSuspended, isHeld }) => [
    decimalBytes(storageBytes),
    `${balanceFula} FULA`,
    isHeld ? "suspended by the operator" : isSuspended ? "suspended" : "",
    `${email ?? "no e-mail address"}; ${account}`,
  ]);
  world.reporter.result({
    data: { verb: "user list", accounts, next },
    lines: [
      accounts.length === 0 ? "There are no more accounts." : `${countOf(accounts.length, "account")}:`,
      ...world.reporter.table(rows),
      ...(next === null ? [] : [`More: fula-node user list --after ${next}`]),
    ],
  });
  return "ok";
}

/** The flags that name an account and say why something is done to it. */
export interface DecisionFlags extends BaseFlags {
  readonly email?: string;
  readonly account?: string;
  readonly reason: string;
}

/** `user suspend --email E --reason TEXT`: the account may not upload any more, whatever its balance is. */
export async function userSuspend(flags: DecisionFlags, world: World): Promise<VerbExit> {
  return decide(flags, world, "user suspend", holdAccount, {
    changed: "Suspended the account",
    unchanged: "Nothing to do: it is already suspended by the operator:",
    more: "It may not upload until fula-node user unsuspend. Its pins stay.",
  });
}

/** `user unsuspend --email E --reason TEXT`: ends a suspension by the operator or by the billing. */
export async function userUnsuspend(flags: DecisionFlags, world: World): Promise<VerbExit> {
  return decide(flags, world, "user unsuspend", releaseAccount, {
    changed: "No longer suspended: the account",
    unchanged: "Nothing to do: it is not suspended:",
    more: "The billing suspends it again if its balance is used up.",
  });
}

async function decide(
  flags: DecisionFlags,
  world: World,
  verb: string,
  change: typeof holdAccount,
  texts: { readonly changed: string; readonly unchanged: string; readonly more: string },
): Promise<VerbExit> {
  const account = readAccount(flags);
  const reason = readReason(flags.reason);
  const outcome = await withAccounts(flags, world, ({ database }) =>
    change(database, { account, reason, actor: actorOf(world) }),
  );
  if (outcome === "no-account") throw noAccount(flags);
  world.reporter.result({
    data: { verb, account, changed: outcome === "changed" },
    lines:
      outcome === "changed"
        ? [`${texts.changed} ${account}.`, texts.more]
        : [`${texts.unchanged} ${account}.`],
  });
  return "ok";
}

/** The flags of `user credit`. */
export interface CreditFlags extends DecisionFlags {
  readonly key: string;
  readonly deduct?: boolean;
}

/**
 * `user credit AMOUNT --email E --reason TEXT --key KEY [--deduct]`: corrects a balance, once for a key. With `--deduct` it
 * takes AMOUNT away.
 */
export async function userCredit(amount: string, flags: CreditFlags, world: World): Promise<VerbExit> {
  const signed = readAmount(amount, flags.deduct === true);
  const account = readAccount(flags);
  const reason = readReason(flags.reason);
  const { key } = flags;
  if (!/^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$/.test(key))
    throw usage(
      `--key is ${quoted(key)}; it must be 1 to 100 characters of a-z, A-Z, 0-9, dot, dash, colon and underscore.`,
      "Pass a text that you use for this one payment only, such as --key invoice-2026-117.",
    );
  const outcome = await withAccounts(flags, world, ({ database }) =>
    adjustCredit(database, { account, amount: signed, reason, key, actor: actorOf(world) }),
  );
  if (outcome.outcome === "no-account") throw noAccount(flags);
  if (outcome.outcome === "already" && !outcome.isSame) throw otherAdjustment(key, outcome.made);
  const done = outcome.outcome === "adjusted" ? outcome : null;
  world.reporter.result({
    data: {
      verb: "user credit",
      account,
      amount: signed,
      key,
      changed: done !== null,
      balanceFula: done?.balanceFula ?? null,
    },
    lines:
      outcome.outcome === "already"
        ? [`Nothing to do: the key ${key} was already used for this, at ${outcome.made.created}.`]
        : [
            `${flags.deduct === true ? "Deducted" : "Credited"} ${amount} FULA: the balance of ${account} is now ${outcome.balanceFula} FULA.`,
            ...(outcome.isSuspended ? ["The account is still suspended."] : []),
          ],
  });
  return "ok";
}

/** The amount with its sign. At most a billion: more is a typing error. */
function readAmount(text: string, deduct: boolean): string {
  const example = "Pass a number such as 12.5. To take FULA away, add --deduct.";
  if (text.startsWith("-"))
    throw usage(
      `AMOUNT is ${quoted(text)}; it must not be negative.`,
      "To take FULA away, pass a positive number and --deduct.",
    );
  if (!/^(?:0|[1-9][0-9]{0,9})(?:\.[0-9]{1,8})?$/.test(text) || Number(text) === 0 || Number(text) > MAX_FULA)
    throw usage(
      `AMOUNT is ${quoted(text)}; it must be above 0 and at most ${grouped(MAX_FULA)}, with up to 8 digits after the point.`,
      example,
    );
  return deduct ? `-${text}` : text;
}

const MAX_FULA = 1_000_000_000;

function readReason(text: string): string {
  const reason = text.trim();
  if (reason.length > 0 && reason.length <= 500 && visible(reason, { oneLine: true }) === reason)
    return reason;
  throw usage(
    "--reason must be one line of 1 to 500 characters.",
    "Say why, so that the audit log shows it: --reason 'refund of invoice 117'.",
  );
}

/** The account that `--email` or `--account` names. */
function readAccount({ email, account }: DecisionFlags): string {
  if ((email === undefined) === (account === undefined))
    throw usage("The account must be named by --email or by --account.", "Pass one of them.");
  if (email !== undefined) return userIdOf(emailOf(email));
  const id = account?.includes("@") === true ? null : accountIdOf(account ?? "");
  if (id !== null) return id;
  throw usage(
    `--account is ${quoted(account ?? "")}; it must be an account's id.`,
    "See the ids with fula-node user list.",
  );
}

/** Who decides, for the audit log: the user before sudo, on this machine. */
export function actorOf({ environment, hostname }: World): string {
  const user = environment["SUDO_USER"] ?? "";
  return `${/^[A-Za-z0-9._-]{1,64}$/.test(user) ? user : "root"}@${hostname}`;
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 80));
}

function usage(what: string, remedy?: string): OperatorError {
  return new OperatorError({ exit: "usage", what, ...(remedy === undefined ? {} : { remedy }) });
}

function noAccount({ email, account }: DecisionFlags): OperatorError {
  return new OperatorError({
    exit: "settings",
    what: `There is no account for ${email ?? quoted(account ?? "")}.`,
    remedy:
      email === undefined
        ? "See the accounts with fula-node user list."
        : `Create it first: fula-node user create --email ${email}`,
  });
}

function otherAdjustment(key: string, { account, amount, created }: MadeAdjustment): OperatorError {
  return new OperatorError({
    exit: "drift",
    what: `The key ${key} was already used for another adjustment.`,
    why: `At ${created}, ${amount} FULA were booked for the account ${account} with it.`,
    remedy: "If this is another payment, pass another --key. If not, correct the amount or the account.",
  });
}

async function withAccounts<Result>(
  { baseDir }: BaseFlags,
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
