import { isNoAmount } from "../database/connection-fault.ts";
import { messageOf } from "../errors.ts";
import { isOfData, refusalOf } from "./deduction.ts";
import { ADD_MISSING, lockSql } from "./deduction-sql.ts";
import {
  ADD_TRANSFERS,
  BONUS,
  CREDIT,
  CREDITABLE,
  DISMISS,
  DISMISSED,
  FAILED_ROWS,
  FORGET_FAILED,
  LOCK_TRANSACTION,
  NOTE_FAILED,
  OPEN_TRANSACTION,
  OTHER_BLOCK,
  REFERRERS,
  SUM_UP,
  TAKE_BACK,
} from "./deposit-sql.ts";
import type { Bank } from "./lease.ts";
import type { Transfer } from "./transfer.ts";

type Database = Pick<Bank, "query">;

/** One transaction of a chain with its transfers to the vault. */
export interface Deposit {
  readonly chainId: number;
  /** All of one transaction, and each large enough to count (isDeposit). At least one. */
  readonly transfers: readonly Transfer[];
  /** Of the block: seconds since 1970. */
  readonly time: number;
  readonly source: "cron" | "manual";
  /** REFERRAL_BONUSES_ENABLED. */
  readonly bonuses: boolean;
}

/** `elsewhere`: upstream's image settled the transaction. `dismissed`: the operator has decided not to credit it. */
export type SettleOutcome = "settled" | "elsewhere" | "dismissed";

/** A transfer that can't be credited as it is. */
export class DepositRefused extends Error {}

/**
 * Settles a transaction inside of a database transaction: rows, credit, bonuses and claim, all or nothing. Doing it again, or
 * on several masters at once, credits nothing twice. A transfer from a wallet that nobody has linked is recorded without
 * a credit; once the wallet is linked, a claim credits it.
 */
export async function settle(database: Database, deposit: Deposit): Promise<SettleOutcome> {
  const { chainId, time, source, bonuses } = deposit;
  const [given] = deposit.transfers;
  if (given === undefined) return "settled";
  const { txHash, block, blockHash } = given;
  const key = [chainId, txHash];
  const dismissed = await database.query<{ log_index: number }>(DISMISSED, key);
  const transfers = deposit.transfers.filter(
    ({ logIndex }) => !dismissed.some(({ log_index }) => log_index === logIndex),
  );
  const [first] = transfers;
  if (first === undefined) return "dismissed";
  const [opened] = await database.query(OPEN_TRANSACTION, [
    ...key,
    first.from,
    first.to,
    first.amount,
    block,
    time,
    source,
  ]);
  if (opened === undefined) {
    const [found] = await database.query<{ ours: boolean }>(LOCK_TRANSACTION, key);
    if (found?.ours !== true) {
      await database.query(FORGET_FAILED, [...key, transfers.map(({ logIndex }) => logIndex)]);
      return "elsewhere";
    }
  }
  const [other] = await database.query<{ block: string }>(OTHER_BLOCK, [...key, blockHash]);
  if (other !== undefined)
    throw new DepositRefused(
      `the chain was reorganised: block ${other.block} had this transaction, and it was settled; now block ${block} has it`,
    );
  await database.query(ADD_TRANSFERS, [
    ...key,
    transfers.map(({ logIndex }) => logIndex),
    transfers.map(({ from }) => from),
    transfers.map(({ amount }) => amount),
    block,
    blockHash,
  ]);
  await credit(database, key, bonuses);
  await database.query(SUM_UP, key);
  await database.query(FORGET_FAILED, [...key, transfers.map(({ logIndex }) => logIndex)]);
  return "settled";
}

interface Creditable extends Record<string, unknown> {
  readonly log_index: number;
  readonly amount: string;
  readonly account: string;
}

interface Referrer extends Record<string, unknown> {
  readonly account: string;
  readonly code: string;
  readonly level: number;
}

async function credit(database: Database, key: readonly unknown[], bonuses: boolean): Promise<void> {
  const open = await database.query<Creditable>(CREDITABLE, key);
  const referrers = new Map<string, readonly Referrer[]>();
  for (const { account } of open)
    referrers.set(account, bonuses ? await database.query<Referrer>(REFERRERS, [account]) : []);
  const touched = [
    ...new Set([...referrers].flatMap(([account, up]) => [account, ...up.map((one) => one.account)])),
  ];
  // All rows in one order, as the deduction locks them: nobody waits for somebody who waits for this.
  await database.query(ADD_MISSING, [touched]);
  await database.query(lockSql(true), [touched]);
  for (const { log_index, amount, account } of open) {
    const [credited] = await named(account, () =>
      database.query<{ history_id: number }>(CREDIT, [...key, log_index, account, amount]),
    );
    const up = referrers.get(account) ?? [];
    for (const { account: referrer, code, level } of up)
      await named(referrer, () =>
        database.query(BONUS, [referrer, code, level, credited?.history_id, account, amount, up[0]?.code]),
      );
  }
}

/** Names the account whose balance takes no credit: of a deposit, it may be a referrer's. */
async function named<Result>(account: string, change: () => Promise<Result>): Promise<Result> {
  try {
    return await change();
  } catch (thrown) {
    if (isNoAmount(thrown)) throw new DepositRefused(refusalOf(thrown, account));
    throw thrown;
  }
}

/** A transfer that could not be credited, and why. */
export interface FailedTransfer {
  readonly transfer: Transfer;
  readonly reason: string;
}

/**
 * Settles a transaction. If the database refuses it for what it has or what the account has, each of its transfers is tried by
 * itself; those that fail are returned. Every other error is thrown: it says nothing about the transfer.
 */
export async function settleOrRefuse(
  bank: Pick<Bank, "transaction">,
  deposit: Deposit,
): Promise<{ readonly outcome: SettleOutcome | "failed"; readonly failed: readonly FailedTransfer[] }> {
  try {
    return { outcome: await bank.transaction((database) => settle(database, deposit)), failed: [] };
  } catch (thrown) {
    if (!isOfDeposit(thrown)) throw thrown;
    const [first, ...more] = deposit.transfers;
    if (first === undefined) return { outcome: "settled", failed: [] };
    if (more.length === 0)
      return { outcome: "failed", failed: [{ transfer: first, reason: messageOf(thrown) }] };
  }
  const failed: FailedTransfer[] = [];
  for (const transfer of deposit.transfers)
    failed.push(...(await settleOrRefuse(bank, { ...deposit, transfers: [transfer] })).failed);
  return { outcome: failed.length < deposit.transfers.length ? "settled" : "failed", failed };
}

/** Errors that a transfer, or what an account has, can cause, and what we refuse ourselves. */
function isOfDeposit(thrown: unknown): boolean {
  return thrown instanceof DepositRefused || isOfData(thrown);
}

/** Puts transfers that failed into the list that status shows and the operator has tried again. `time` is the block's. */
export async function noteFailed(
  database: Database,
  chainId: number,
  failed: readonly (FailedTransfer & { readonly time: number })[],
): Promise<void> {
  for (const { transfer, reason, time } of failed)
    await database.query(NOTE_FAILED, [
      chainId,
      transfer.txHash,
      transfer.logIndex,
      JSON.stringify({ ...transfer, time }),
      reason,
    ]);
}

/** Names one transfer. */
export interface TransferName {
  readonly chainId: number;
  readonly txHash: string;
  readonly logIndex: number;
}

/** A transfer that the operator has decided about. */
export interface Decided extends Record<string, unknown> {
  readonly fula: string;
  readonly from: string;
}

/** Takes a transfer off the list: nothing credits it any more. Null if it does not stand there. */
export async function dismissFailed(
  database: Database,
  { chainId, txHash, logIndex }: TransferName,
  actor: string,
): Promise<Decided | null> {
  const [decided = null] = await database.query<Decided>(DISMISS, [chainId, txHash, logIndex, actor]);
  return decided;
}

interface FailedRow extends Record<string, unknown> {
  readonly chain_id: number;
  readonly transfer: Transfer & { readonly time: number };
}

/**
 * Tries the transfers of the list again, the oldest first; or the named one, which may be dismissed: `by` takes it back into the list.
 * Returns how many were settled, and how many failed again.
 */
export async function retryFailed(
  bank: Bank,
  bonuses: boolean,
  only: (TransferName & { readonly by: string }) | null = null,
): Promise<{ readonly settled: number; readonly failed: number }> {
  const key = only === null ? [null, null, null] : [only.chainId, only.txHash, only.logIndex];
  if (only !== null) await bank.query(TAKE_BACK, [...key, only.by]);
  const rows = await bank.query<FailedRow>(FAILED_ROWS, key);
  let failures = 0;
  for (const { chain_id: chainId, transfer } of rows) {
    const { time } = transfer;
    const deposit = { chainId, transfers: [transfer], time, source: "cron", bonuses } as const;
    const { failed } = await settleOrRefuse(bank, deposit);
    failures += failed.length;
    if (failed.length > 0)
      await bank.transaction((database) =>
        noteFailed(
          database,
          chainId,
          failed.map((one) => ({ ...one, time })),
        ),
      );
  }
  return { settled: rows.length - failures, failed: failures };
}
