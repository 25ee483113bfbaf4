import { isNoAmount } from "../database/connection-fault.ts";
import { messageOf } from "../errors.ts";
import { giveBonuses, giveUnpaid, referrersOf, type Referrer, type Unpaid } from "./bonuses.ts";
import { isOfData, refusalOf } from "./deduction.ts";
import { ADD_MISSING, lockSql } from "./deduction-sql.ts";
import {
  ADD_TRANSFERS,
  CREDIT,
  CREDITABLE,
  DISMISS,
  DISMISSED,
  FAILED_ROWS,
  FORGET_BONUSES,
  FORGET_FAILED,
  LOCK_TRANSACTION,
  NOTE_FAILED,
  OPEN_TRANSACTION,
  SUM_UP,
  TAKE_BACK,
} from "./deposit-sql.ts";
import type { Bank } from "./lease.ts";
import { compareRecorded, DepositRefused, type Dismissed } from "./same-transfers.ts";
import type { Transfer } from "./transfer.ts";

type Database = Pick<Bank, "query">;

/** One transaction of a chain with its transfers to the vault. */
export interface Deposit {
  readonly chainId: number;
  /** All of one transaction, and each large enough to count (isDeposit). At least one. */
  readonly transfers: readonly Transfer[];
  /** All transfers of the transaction that count, in the answer which has these; without it, that is not known. */
  readonly listed?: readonly Transfer[];
  /** Of the block: seconds since 1970. */
  readonly time: number;
  readonly source: "cron" | "manual";
  /** REFERRAL_BONUSES_ENABLED. */
  readonly bonuses: boolean;
}

/** `elsewhere`: upstream's image settled the transaction. `dismissed`: the operator has decided not to credit it. */
export type SettleOutcome = "settled" | "elsewhere" | "dismissed";

/** What became of a transaction. */
export interface Settled {
  readonly outcome: SettleOutcome;
  /** Who got a credit by this. */
  readonly credited: readonly string[];
}

/**
 * Settles a transaction inside of a database transaction: rows, credit, bonuses and claim, all or nothing. Doing it again, or
 * on several masters at once, credits nothing twice. A transfer from a wallet that nobody has linked is recorded without
 * a credit; once the wallet is linked, a claim credits it.
 */
export async function settle(database: Database, deposit: Deposit): Promise<Settled> {
  const { chainId, time, source, bonuses, listed = null } = deposit;
  const [given] = deposit.transfers;
  if (given === undefined) return { outcome: "settled", credited: [] };
  const { txHash, block, blockHash } = given;
  const key = [chainId, txHash] as const;
  const dismissed = await database.query<Dismissed>(DISMISSED, key);
  const wanted = ({ logIndex }: Transfer): boolean => !dismissed.some((one) => one.logIndex === logIndex);
  const asked = deposit.transfers.filter(wanted);
  const [first] = asked;
  if (first === undefined) return { outcome: "dismissed", credited: [] };
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
      await database.query(FORGET_FAILED, [...key, asked.map(({ logIndex }) => logIndex)]);
      return { outcome: "elsewhere", credited: [] };
    }
  }
  const compared = await compareRecorded(database, key, { transfers: asked, listed, dismissed, time });
  const transfers = compared.filter(wanted);
  await database.query(ADD_TRANSFERS, [
    ...key,
    transfers.map(({ logIndex }) => logIndex),
    transfers.map(({ from }) => from),
    transfers.map(({ amount }) => amount),
    block,
    blockHash,
  ]);
  const { accounts, unpaid } = await credit(database, key, bonuses);
  await database.query(SUM_UP, key);
  await database.query(FORGET_FAILED, [...key, transfers.map(({ logIndex }) => logIndex)]);
  const { to } = first;
  await noteFailed(
    database,
    chainId,
    unpaid.map(({ transfer, reason }) => ({ transfer: { ...transfer, txHash, to }, reason, time })),
  );
  return { outcome: "settled", credited: accounts };
}

interface Creditable
  extends Pick<Transfer, "from" | "amount" | "block" | "blockHash">, Record<string, unknown> {
  readonly log_index: number;
  readonly account: string;
}

/** A credited transfer with the referrers that did not get their bonus for it. */
interface UnpaidTransfer {
  readonly transfer: Omit<Transfer, "txHash" | "to"> & Pick<Unpaid, "referrers">;
  readonly reason: string;
}

async function credit(
  database: Database,
  key: readonly unknown[],
  bonuses: boolean,
): Promise<{ readonly accounts: readonly string[]; readonly unpaid: readonly UnpaidTransfer[] }> {
  const open = await database.query<Creditable>(CREDITABLE, key);
  const referrers = new Map<string, readonly Referrer[]>();
  for (const { account } of open) referrers.set(account, bonuses ? await referrersOf(database, account) : []);
  await lockAccounts(
    database,
    [...referrers].flatMap(([account, up]) => [account, ...up.map((one) => one.account)]),
  );
  const unpaid: UnpaidTransfer[] = [];
  for (const { log_index: logIndex, account, amount, from, block, blockHash } of open) {
    const [credited] = await named(account, () =>
      database.query<{ history_id: number }>(CREDIT, [...key, logIndex, account, amount]),
    );
    const source = { account, amount, historyId: credited?.history_id };
    const lacking = await giveBonuses(database, source, referrers.get(account) ?? []);
    if (lacking === null) continue;
    const { referrers: left, reason } = lacking;
    unpaid.push({ transfer: { logIndex, from, amount, block, blockHash, referrers: left }, reason });
  }
  return { accounts: [...referrers.keys()], unpaid };
}

/** All rows in one order, as the deduction locks them: nobody waits for somebody who waits for this. */
async function lockAccounts(database: Database, accounts: readonly string[]): Promise<void> {
  const touched = [...new Set(accounts)];
  await database.query(ADD_MISSING, [touched]);
  await database.query(lockSql(true), [touched]);
}

/** Names the account whose balance takes no credit. */
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
  readonly transfer: Transfer & Partial<Pick<Unpaid, "referrers">>;
  readonly reason: string;
}

/**
 * Settles a transaction. If the database refuses it for what it has or what the account has, each of its transfers is tried by
 * itself; those that fail are returned. Every other error is thrown: it says nothing about the transfer.
 */
export async function settleOrRefuse(
  bank: Pick<Bank, "transaction">,
  deposit: Deposit,
): Promise<SettledOrFailed> {
  const { transfers } = deposit;
  try {
    return { ...(await bank.transaction((database) => settle(database, deposit))), failed: [] };
  } catch (thrown) {
    if (!isOfDeposit(thrown)) throw thrown;
    const [transfer] = transfers;
    if (transfer !== undefined && transfers.length === 1)
      return { outcome: "failed", credited: [], failed: [{ transfer, reason: messageOf(thrown) }] };
  }
  const parts: SettledOrFailed[] = [];
  for (const transfer of transfers)
    parts.push(await settleOrRefuse(bank, { ...deposit, transfers: [transfer] }));
  const failed = parts.flatMap((part) => part.failed);
  return {
    outcome: failed.length < transfers.length ? "settled" : "failed",
    credited: parts.flatMap((part) => part.credited),
    failed,
  };
}

interface SettledOrFailed extends Pick<Settled, "credited"> {
  readonly outcome: SettleOutcome | "failed";
  readonly failed: readonly FailedTransfer[];
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
  readonly transfer: Transfer & { readonly time: number; readonly gone?: boolean } & Partial<
      Pick<Unpaid, "referrers">
    >;
  readonly reason: string;
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
  for (const { chain_id: chainId, transfer, reason } of rows) {
    const { time } = transfer;
    const deposit = { chainId, transfers: [transfer], time, source: "cron", bonuses } as const;
    // Only the chain can bring back a block that is gone.
    const { failed } =
      transfer.gone === true
        ? { failed: [{ transfer, reason }] }
        : transfer.referrers === undefined
          ? await settleOrRefuse(bank, deposit)
          : { failed: await retryBonuses(bank, chainId, { ...transfer, referrers: transfer.referrers }) };
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

/** Tries again the bonuses of a credited transfer. Returns what still fails of it. */
async function retryBonuses(
  bank: Pick<Bank, "transaction">,
  chainId: number,
  transfer: Transfer & Pick<Unpaid, "referrers">,
): Promise<readonly FailedTransfer[]> {
  const { txHash, logIndex, referrers } = transfer;
  const key = [chainId, txHash, logIndex] as const;
  return bank.transaction(async (database) => {
    await database.query(LOCK_TRANSACTION, [chainId, txHash]);
    await lockAccounts(
      database,
      referrers.map(({ account }) => account),
    );
    const unpaid = await giveUnpaid(database, key, referrers);
    if (unpaid !== null)
      return [{ transfer: { ...transfer, referrers: unpaid.referrers }, reason: unpaid.reason }];
    await database.query(FORGET_BONUSES, key);
    return [];
  });
}
