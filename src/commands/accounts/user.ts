import { accountIdOf, userIdOf } from "../../accounts/account-id.ts";
import { listAccounts } from "../../accounts/account-list.ts";
import { type HistoryLine, listHistory } from "../../accounts/credit-history.ts";
import { adjustCredit, type MadeAdjustment } from "../../accounts/credits.ts";
import { accountExists, actorOf, holdAccount, readReason, releaseAccount } from "../../accounts/decisions.ts";
import { createUser, emailOf, type UserDeps } from "../../accounts/users.ts";
import { OperatorError, type VerbExit } from "../../errors.ts";
import {
  type InstalledMaster,
  readInstalledMaster,
  refuseUnfinishedRestore,
  refuseUnfinishedRotation,
} from "../../join/installed-node.ts";
import { withMasterDatabase } from "../../join/master-database.ts";
import { billingOf } from "../../settings/billing.ts";
import { wrap } from "../../ui/text.ts";
import { countOf, decimalBytes, grouped } from "../../units.ts";
import type { World } from "../../world.ts";

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
    lines: created
      ? [
          ...wrap(`Created the account ${userId}.`),
          "To create an API key for it:",
          `  fula-node user token --email ${flags.email}`,
        ]
      : wrap(`Nothing to do: the account already exists: ${userId}.`),
  });
  return "ok";
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
  const rows = accounts.flatMap(({ account, email, storageBytes, balanceFula, isSuspended, isHeld }) => {
    const state = isHeld ? ["suspended by the operator"] : isSuspended ? ["suspended"] : [];
    const facts = [
      email ?? "no e-mail address",
      decimalBytes(storageBytes),
      `${balanceFula} FULA`,
      ...state,
    ].join(", ");
    return [`  ${account}`, ...wrap(facts, 74).map((line) => `      ${line}`)];
  });
  world.reporter.result({
    data: { verb: "user list", accounts, next },
    lines: [
      accounts.length === 0
        ? `There are no ${after === "" ? "" : "more "}accounts.`
        : `${next === null ? "" : "The first "}${countOf(accounts.length, "account")}:`,
      ...rows,
      ...(next === null ? [] : ["More:", `  fula-node user list --after ${next}`]),
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
  return decide(flags, world, "user suspend", holdAccount, (outcome, account) =>
    outcome === "changed"
      ? [
          `Suspended the account ${account}.`,
          "It may not upload until fula-node user unsuspend. Its pins stay.",
        ]
      : [`Nothing to do: it is already suspended by the operator: ${account}.`],
  );
}

/** `user unsuspend --email E --reason TEXT`: ends a suspension by the operator or by the billing. */
export async function userUnsuspend(flags: DecisionFlags, world: World): Promise<VerbExit> {
  return decide(flags, world, "user unsuspend", releaseAccount, (outcome, account, balance, isBilled) => [
    outcome === "changed"
      ? `The account ${account} is no longer suspended.`
      : `Nothing to do: it is not suspended: ${account}.`,
    ...(outcome === "changed" && isBilled ? [afterRelease(balance)] : []),
  ]);
}

/** The billing suspends whom it charges more than the balance. It charges only what is above the free tier. */
function afterRelease(balance: number): string {
  return balance > 0
    ? "The billing suspends it again when its balance is used up."
    : `Its balance is ${balance} FULA: if it stores more than the free tier, the next run of the billing ${balance < 0 ? "suspends it again, without a charge" : "charges it once more, and suspends it"}. To prevent that, add to its balance first: fula-node user credit.`;
}

async function decide(
  flags: DecisionFlags,
  world: World,
  verb: string,
  change: typeof holdAccount,
  say: (
    outcome: "changed" | "unchanged",
    account: string,
    balance: number,
    isBilled: boolean,
  ) => readonly string[],
): Promise<VerbExit> {
  const account = readAccount(flags);
  const reason = readReason(flags.reason);
  const { done, isBilled } = await withAccounts(flags, world, async ({ database }, { values }) => ({
    done: await change(database, { account, reason, actor: actorOf(world) }),
    isBilled: isBilling(values),
  }));
  const { outcome, balanceFula } = done;
  if (outcome === "no-account") throw noAccount(flags);
  world.reporter.result({
    data: { verb, account, changed: outcome === "changed", balanceFula },
    lines: say(outcome, account, balanceFula, isBilled).flatMap((line) => wrap(line)),
  });
  return "ok";
}

function isBilling(values: InstalledMaster["values"]): boolean {
  return billingOf(values)?.idempotent === true;
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
  const { outcome, isBilled } = await withAccounts(flags, world, async ({ database }, { values }) => ({
    outcome: await adjustCredit(database, { account, amount: signed, reason, key, actor: actorOf(world) }),
    isBilled: isBilling(values),
  }));
  if (outcome.outcome === "no-account") throw noAccount(flags);
  if (outcome.outcome === "too-large")
    throw new OperatorError({
      exit: "drift",
      what: `Nothing was booked: the balance of ${account} would be above 10^30 FULA, or below minus that.`,
      why: "No balance can be that large.",
      remedy: "See the balance with fula-node user list, and pass an amount that leaves it in that range.",
    });
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
      replaced: done?.replaced ?? null,
    },
    lines: (outcome.outcome === "already"
      ? [`Nothing to do: the key ${key} was already used for this, at ${outcome.made.created}.`]
      : [
          ...(outcome.replaced === null
            ? []
            : [
                `The balance was ${outcome.replaced.was}, or a total was not a number. The last exact numbers count again: the balance was ${outcome.replaced.balance} FULA before this.`,
              ]),
          `${flags.deduct === true ? "Deducted" : "Credited"} ${amount} FULA: the balance of ${account} is now ${outcome.balanceFula} FULA.`,
          ...(outcome.isSuspended ? ["The account is still suspended."] : []),
          ...(flags.deduct === true && outcome.balanceFula < 0
            ? [
                `That is below zero: the account may store no more than the free tier. ${isBilled ? "The billing suspends it with its next run." : "The billing is off on this master, so it does not suspend it."} If that is a mistake, give it back with fula-node user credit and another --key.`,
              ]
            : []),
        ]
    ).flatMap((line) => wrap(line)),
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

/** The account that `--email` or `--account` names. */
export function readAccount({ email, account }: Pick<DecisionFlags, "email" | "account">): string {
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

/** The flags of `user history`. */
export interface HistoryFlags extends BaseFlags {
  readonly email?: string;
  readonly account?: string;
  readonly after?: string;
  readonly limit?: string;
}

const MAX_INTEGER = 2_147_483_647;

/** `user history --email E [--limit N] [--after LINE]`: what changed the balance of an account, the newest first. */
export async function userHistory(flags: HistoryFlags, world: World): Promise<VerbExit> {
  const { after, limit = DEFAULT_PAGE } = flags;
  const account = readAccount(flags);
  if (!/^[1-9][0-9]{0,3}$/.test(limit) || Number(limit) > MAX_PAGE)
    throw usage(
      `--limit is ${quoted(limit)}; it must be a whole number from 1 to ${MAX_PAGE}.`,
      `Pass a number of lines, such as --limit ${DEFAULT_PAGE}.`,
    );
  if (after !== undefined && !(/^-?[1-9][0-9]{0,9}$/.test(after) && Math.abs(Number(after)) <= MAX_INTEGER))
    throw noLine(after);
  const found = await withAccounts(flags, world, async ({ database }) => {
    const [row] = await database.query<{ there: boolean }>(
      `SELECT ${accountExists("$1::varchar")} AS there`,
      [account],
    );
    if (row?.there !== true) throw noAccount(flags);
    const page = { after: after === undefined ? null : Number(after), limit: Number(limit) + 1 };
    return listHistory(database, account, page);
  });
  if (found === null) throw noLine(after ?? "");
  const shown = found.slice(0, Number(limit));
  const next = found.length > shown.length ? (shown.at(-1)?.id ?? null) : null;
  world.reporter.result({
    data: { verb: "user history", account, lines: shown, next },
    lines: [
      shown.length === 0
        ? "Nothing has changed the balance of this account."
        : `${next === null ? "" : "The newest "}${countOf(shown.length, "line")} of ${account}:`,
      ...world.reporter.table(shown.map((line) => [line.created, describe(line)])),
      ...(next === null ? [] : ["More: the same command with", `  --after ${next}`]),
    ],
  });
  return "ok";
}

function describe({ type, fula, balanceAfter, reference, freeBytes, fulaPerGibMonth }: HistoryLine): string {
  const gib = Number(fula) * (-720 / Number(fulaPerGibMonth ?? 0));
  const tariff =
    freeBytes === null || fulaPerGibMonth === null
      ? ""
      : `; ${Number.isFinite(gib) ? `about ${Number(gib.toPrecision(6))} GiB ` : ""}above ${freeBytes} free bytes, at ${fulaPerGibMonth} FULA for a GiB and month`;
  return `${type ?? "unknown"} ${fula} FULA, then ${balanceAfter ?? "unknown"} FULA, ${reference ?? "no reference"}${tariff}`;
}

function noLine(given: string) {
  return usage(
    `The account has no line ${quoted(given)}.`,
    "Pass the number that the page before has at its end.",
  );
}

/** A text of the command line in an error. */
export function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 80));
}

/** The command line is wrong. */
export function usage(what: string, remedy?: string): OperatorError {
  return new OperatorError({ exit: "usage", what, ...(remedy === undefined ? {} : { remedy }) });
}

/** No account has that address or id. */
export function noAccount({ email, account }: Pick<DecisionFlags, "email" | "account">): OperatorError {
  return new OperatorError({
    exit: "usage",
    what: `There is no account for ${email ?? quoted(account ?? "")}.`,
    remedy: "See the accounts with fula-node user list.",
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

/** Works on the accounts of an installed master. Not while its secrets are being rotated. */
export async function withAccounts<Result>(
  { baseDir }: BaseFlags,
  world: World,
  work: (deps: UserDeps, master: InstalledMaster) => Promise<Result>,
): Promise<Result> {
  const master = await readInstalledMaster(world, baseDir);
  const { layout, values } = master;
  await refuseUnfinishedRestore(world.host, layout);
  await refuseUnfinishedRotation(world.host, layout);
  const encryptionKey = requireValue(layout.envFile, "ENCRYPTION_KEY", values("ENCRYPTION_KEY"));
  return withMasterDatabase(world, master, "user", (database) =>
    work({ database, random: world.host.random, encryptionKey }, master),
  );
}

/** A value of `.env` without which nothing works. */
export function requireValue(envFile: string, key: string, value: string | undefined): string {
  if (value !== undefined && value !== "") return value;
  throw new OperatorError({
    exit: "settings",
    what: `${envFile} does not contain ${key}.`,
    remedy: "Run join-as-master again: it creates the value, or explains how to recover the old one.",
  });
}
